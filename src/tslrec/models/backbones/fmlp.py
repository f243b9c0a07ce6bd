"""FMLP-Rec (Zhou et al. 2022): learnable filters over time instead of attention.

Shapes: B sequences, L positions (always `max_len`), I items, D hidden size, F = L // 2 + 1 frequencies, C = 2 F their
real and imaginary parts, N = B × D columns of a spectrum.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tslrec.models.argument_checks import require_positive, require_probability
from tslrec.models.backbones.base import Backbone
from tslrec.models.dropout import Dropout
from tslrec.models.item_embedding import ItemEmbedding

LAYER_NORM_EPS = 1e-12
"""Added to the variance in layer normalisation."""


class FilterLayer(nn.Module):
    """Multiplies the spectrum of each dimension by a learnt complex filter: a circular convolution over time.

    For windows this short, two real matrix products are faster than an FFT. So the (orthonormal) real Fourier transform
    and its inverse are dense matrices: `analysis_CL` and `synthesis_LC`.

    Args:
        max_len: L.
        hidden_size: D.
        dropout: probability of dropping an element of the filtered sequence.
    """

    analysis_CL: Tensor
    synthesis_LC: Tensor

    def __init__(self, max_len: int, hidden_size: int, dropout: float) -> None:
        super().__init__()
        num_frequencies = max_len // 2 + 1
        # `FMLPRec.reset_parameters` draws one filter and copies it to every layer, as the authors' code does.
        self.complex_weight = nn.Parameter(torch.empty(1, num_frequencies, hidden_size, 2))
        analysis, synthesis = real_fourier(max_len)
        self.register_buffer("analysis_CL", analysis, persistent=False)
        self.register_buffer("synthesis_LC", synthesis, persistent=False)
        self.dropout = Dropout(dropout)
        self.norm = nn.LayerNorm(hidden_size, eps=LAYER_NORM_EPS)

    def forward(self, hidden_LBD: Tensor) -> Tensor:
        """Filters all positions; returns `[L, B, D]`.

        Time is the first dimension, so that each transform is one matrix product for the whole batch.
        """
        _, size, hidden_size = hidden_LBD.shape
        spectrum_CN = self.analysis_CL @ hidden_LBD.flatten(1)
        real_FBD, imaginary_FBD = spectrum_CN.unflatten(1, (size, hidden_size)).chunk(2)
        real_F1D, imaginary_F1D = self.complex_weight[0, :, None].unbind(dim=-1)
        product_CBD = torch.cat(
            [
                (real_FBD * real_F1D).addcmul_(imaginary_FBD, imaginary_F1D, value=-1),
                (real_FBD * imaginary_F1D).addcmul_(imaginary_FBD, real_F1D),
            ]
        )
        filtered_LBD = (self.synthesis_LC @ product_CBD.flatten(1)).view_as(hidden_LBD)
        return self.norm(hidden_LBD + self.dropout(filtered_LBD))

    def last(self, hidden_LBD: Tensor) -> Tensor:
        """The output at the last position only, `[B, D]`: there the filter is a dot product over time."""
        filtered_BD = (hidden_LBD * self.kernel()[:, None]).sum(dim=0)
        return self.norm(hidden_LBD[-1] + self.dropout(filtered_BD))

    def kernel(self) -> Tensor:
        """The weight of each input position in the output at the last position, `[L, D]`."""
        real_FD, imaginary_FD = self.complex_weight[0].unbind(dim=-1)
        cosine_F, sine_F = self.synthesis_LC[-1].chunk(2)
        analysis_cosine_FL, analysis_sine_FL = self.analysis_CL.chunk(2)
        on_cosine_FD = cosine_F[:, None] * real_FD + sine_F[:, None] * imaginary_FD
        on_sine_FD = sine_F[:, None] * real_FD - cosine_F[:, None] * imaginary_FD
        return analysis_cosine_FL.T @ on_cosine_FD + analysis_sine_FL.T @ on_sine_FD


class FeedForward(nn.Module):
    """Linear layers D → 4 D → D with an exact GELU between them, added to the input and normalised.

    Args:
        hidden_size: D.
        dropout: probability of dropping an element of the output.
    """

    def __init__(self, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.expand = nn.Linear(hidden_size, 4 * hidden_size)
        self.contract = nn.Linear(4 * hidden_size, hidden_size)
        self.dropout = Dropout(dropout)
        self.norm = nn.LayerNorm(hidden_size, eps=LAYER_NORM_EPS)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.norm(hidden + self.dropout(self.contract(F.gelu(self.expand(hidden)))))


class FMLPRec(Backbone):
    """The authors' encoder, trained with the cross-entropy that all backbones share.

    The window is padded on the left to `max_len`, and a padded position carries its position embedding, as in the
    authors' code. The filter is circular over the whole window, so the backbone is not causal and gives one user vector
    per window, and a shorter window would be a different model.

    Args:
        item_embedding: see `Backbone`.
        num_users: not used.
        max_len: L.
        num_layers: number of blocks of a filter layer and a feed-forward layer.
        dropout: probability of dropping an element after the embedding, the filter and the feed-forward layer.

    Raises:
        ValueError: if a number is out of its range.
    """

    fixed_window = True
    draws_by_dropout = True

    def __init__(
        self,
        item_embedding: ItemEmbedding,
        num_users: int,
        max_len: int,
        *,
        num_layers: int = 2,
        dropout: float = 0.5,
    ) -> None:
        super().__init__(item_embedding, max_len)
        require_positive(num_layers=num_layers)
        require_probability(dropout=dropout)
        hidden_size = self.hidden_size
        self.position_embedding = nn.Parameter(torch.empty(max_len, hidden_size))
        self.norm = nn.LayerNorm(hidden_size, eps=LAYER_NORM_EPS)
        self.dropout = Dropout(dropout)
        self.filters = nn.ModuleList(FilterLayer(max_len, hidden_size, dropout) for _ in range(num_layers))
        self.feed_forwards = nn.ModuleList(FeedForward(hidden_size, dropout) for _ in range(num_layers))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialises from N(0, 0.02); every layer starts with the same filter, as in the authors' code."""
        for module in self.feed_forwards.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.position_embedding, std=0.02)
        first = 0.02 * torch.randn_like(cast(FilterLayer, self.filters[0]).complex_weight)
        with torch.no_grad():
            for layer in self.filters:
                cast(FilterLayer, layer).complex_weight.copy_(first)

    def forward(self, items_BL: Tensor, lengths_B: Tensor, users_B: Tensor, table_ID: Tensor | None = None) -> Tensor:
        window_LB = left_padded(items_BL, lengths_B, self.max_len).T
        hidden_LBD = self.dropout(self.norm(self.embed(window_LB, table_ID) + self.position_embedding[:, None]))
        *earlier, last = zip(self.filters, self.feed_forwards, strict=True)
        for filter_layer, feed_forward in earlier:
            hidden_LBD = feed_forward(filter_layer(hidden_LBD))
        # The user vector is the last position's state, so the last block computes only that.
        filter_layer, feed_forward = last
        return feed_forward(cast(FilterLayer, filter_layer).last(hidden_LBD))


def left_padded(items_BL: Tensor, lengths_B: Tensor, max_len: int) -> Tensor:
    """Moves the padding from the right to the left and extends the window to `max_len`, `[B, max_len]`."""
    source_BL = torch.arange(max_len, device=items_BL.device) - max_len + lengths_B[:, None]
    return torch.where(source_BL >= 0, items_BL.gather(1, source_BL.clamp(min=0, max=items_BL.shape[1] - 1)), 0)


def real_fourier(max_len: int) -> tuple[Tensor, Tensor]:
    """Dense matrices of `rfft(norm="ortho")` and of its inverse.

    Args:
        max_len: L.

    Returns:
        The transform `[C, L]`, whose first F rows give the real parts and whose other rows the imaginary parts, and the
        inverse `[L, C]`.
    """
    time_L = torch.arange(max_len, dtype=torch.float64)
    frequency_F = torch.arange(max_len // 2 + 1, dtype=torch.float64)
    angle_FL = 2 * math.pi * frequency_F[:, None] * time_L / max_len
    scale = 1 / math.sqrt(max_len)
    analysis = torch.cat([angle_FL.cos(), -angle_FL.sin()]) * scale
    # Each frequency also represents its mirror image, except the constant and, if L is even, the highest frequency.
    weight_F = torch.full_like(frequency_F, 2.0)
    weight_F[0] = 1
    if max_len % 2 == 0:
        weight_F[-1] = 1
    synthesis = (torch.cat([angle_FL.cos() * weight_F[:, None], -angle_FL.sin() * weight_F[:, None]]) * scale).T
    return analysis.float(), synthesis.float().contiguous()
