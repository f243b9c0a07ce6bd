"""FMLP-Rec's encoder as its authors compute it, for the side that it is compared on: RecBole has none.

Every layer computes every position, the filter goes through the FFT, and layer norm and gelu are written out in
elementary operations, as in the authors' code, which is what its users run. A test holds it to the golden file;
parameters have the authors' names.

Shapes: B sequences, L positions, D hidden size, F = L // 2 + 1 frequencies.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

LAYER_NORM_EPS = 1e-12


class LayerNorm(nn.Module):
    """Over the last dimension, with the biased variance."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.bias = nn.Parameter(torch.zeros(hidden_size))

    def forward(self, hidden: Tensor) -> Tensor:
        mean = hidden.mean(dim=-1, keepdim=True)
        variance = (hidden - mean).pow(2).mean(dim=-1, keepdim=True)
        return self.weight * ((hidden - mean) / torch.sqrt(variance + LAYER_NORM_EPS)) + self.bias


def gelu(hidden: Tensor) -> Tensor:
    """The exact one."""
    return hidden * 0.5 * (1.0 + torch.erf(hidden / math.sqrt(2.0)))


class FilterLayer(nn.Module):
    """Spectrum times a learnt complex weight."""

    def __init__(self, max_len: int, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.complex_weight = nn.Parameter(0.02 * torch.randn(1, max_len // 2 + 1, hidden_size, 2))
        self.out_dropout = nn.Dropout(dropout)
        self.LayerNorm = LayerNorm(hidden_size)

    def forward(self, hidden_BLD: Tensor) -> Tensor:
        spectrum_BFD = torch.fft.rfft(hidden_BLD, dim=1, norm="ortho") * torch.view_as_complex(self.complex_weight)
        filtered_BLD = torch.fft.irfft(spectrum_BFD, n=hidden_BLD.shape[1], dim=1, norm="ortho")
        return self.LayerNorm(self.out_dropout(filtered_BLD) + hidden_BLD)


class Intermediate(nn.Module):
    """Feed-forward, four times as wide inside."""

    def __init__(self, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.dense_1 = nn.Linear(hidden_size, 4 * hidden_size)
        self.dense_2 = nn.Linear(4 * hidden_size, hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.LayerNorm = LayerNorm(hidden_size)

    def forward(self, hidden_BLD: Tensor) -> Tensor:
        return self.LayerNorm(self.dropout(self.dense_2(gelu(self.dense_1(hidden_BLD)))) + hidden_BLD)


class Layer(nn.Module):
    def __init__(self, max_len: int, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.filterlayer = FilterLayer(max_len, hidden_size, dropout)
        self.intermediate = Intermediate(hidden_size, dropout)

    def forward(self, hidden_BLD: Tensor) -> Tensor:
        hidden_BLD = self.intermediate(self.filterlayer(hidden_BLD))
        return hidden_BLD


class Encoder(nn.Module):
    def __init__(self, max_len: int, hidden_size: int, num_layers: int, dropout: float) -> None:
        super().__init__()
        self.layer = nn.ModuleList(Layer(max_len, hidden_size, dropout) for _ in range(num_layers))

    def forward(self, hidden_BLD: Tensor) -> Tensor:
        for layer in self.layer:
            hidden_BLD = layer(hidden_BLD)
        return hidden_BLD


class FMLPReference(nn.Module):
    """Left-padded item ids `[B, L]` to the user vector at the last position, `[B, D]`."""

    def __init__(self, num_rows: int, max_len: int, hidden_size: int, num_layers: int, dropout: float) -> None:
        super().__init__()
        self.item_embeddings = nn.Embedding(num_rows, hidden_size, padding_idx=0)
        self.position_embeddings = nn.Embedding(max_len, hidden_size)
        self.LayerNorm = LayerNorm(hidden_size)
        self.dropout = nn.Dropout(dropout)
        self.item_encoder = Encoder(max_len, hidden_size, num_layers, dropout)
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Embedding):
                nn.init.normal_(module.weight, std=0.02)

    def forward(self, items_BL: Tensor) -> Tensor:
        positions_LD = self.position_embeddings.weight
        hidden_BLD = self.dropout(self.LayerNorm(self.item_embeddings(items_BL) + positions_LD))
        return self.item_encoder(hidden_BLD)[:, -1]


def left_padded(items_BL: Tensor, lengths_B: Tensor) -> Tensor:
    """Moves the padding of `[B, L]` ids from the right to the left."""
    column_L = torch.arange(items_BL.shape[1], device=items_BL.device)
    source_BL = column_L - items_BL.shape[1] + lengths_B[:, None]
    return torch.where(source_BL >= 0, items_BL.gather(1, source_BL.clamp(min=0)), 0)
