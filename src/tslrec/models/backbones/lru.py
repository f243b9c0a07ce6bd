"""LRURec (Yue et al. 2024): linear recurrent units, which all positions compute at once and each new item updates.

The equations are those of the paper's Section 3 as the public code computes them (yueqirex/LRURec b33df55, and
LlamaRec 48b288b, whose retriever it is).

Shapes: B sequences, L positions, I items (row 0 of a table is padding), D hidden size, E = D + 1 size of a user vector,
H = 2 D channels of the recurrence, 2 real and imaginary part, T positions of all sequences.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tslrec.data.interactions import PADDING
from tslrec.data.packing import Packing
from tslrec.models.argument_checks import require_positive, require_probability
from tslrec.models.backbones.base import CausalBackbone, last_position
from tslrec.models.dropout import Dropout
from tslrec.models.item_embedding import ItemEmbedding
from tslrec.models.linear_recurrence import states_by_doubling, states_by_steps
from tslrec.models.step_order import StepOrder, order_of_packing, order_of_rows

LAYER_NORM_EPS = 1e-5
"""Added to the variance in layer normalisation."""
RADII = (0.8, 0.99)
"""|λ| is drawn between these."""
STD, CUT = 0.02, 0.04
"""Weights are drawn from a normal distribution of this deviation, cut at ± this."""

Scan = Callable[[Tensor, Tensor], Tensor]
"""Computes the states of the recurrence from its inputs `[..., H, 2]` and λ `[H, 2]`."""


class Recurrence(nn.Module):
    """`h_t = γ (B x_t + b) + λ h_{t-1}` with a complex B `[H, D]`, b, λ and h, and a real γ, all per channel.

    λ is `exp(-ν + iθ)`. ν, θ and γ are positive: their logarithms are the parameters.

    Args:
        hidden_size: D.
    """

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        channels = 2 * hidden_size
        self.nu_log = nn.Parameter(torch.empty(channels))
        self.theta_log = nn.Parameter(torch.empty(channels))
        self.gamma_log = nn.Parameter(torch.empty(channels))
        self.weight = nn.Parameter(torch.empty(channels, 2, hidden_size))
        self.bias = nn.Parameter(torch.empty(channels, 2))

    def reset_parameters(self) -> None:
        """|λ|² uniform between the squares of `RADII`, its angle up to 2π, and γ so that states stay of one size."""
        low, high = (radius**2 for radius in RADII)
        with torch.no_grad():
            squared_H = torch.rand_like(self.nu_log) * (high - low) + low
            self.nu_log.copy_((-0.5 * squared_H.log()).log())
            self.theta_log.copy_((2 * math.pi * torch.rand_like(self.theta_log)).log())
            self.gamma_log.copy_(0.5 * (1 - squared_H).log())
        draw_weights(self.weight, self.bias)

    def decay(self) -> Tensor:
        """λ, `[H, 2]`."""
        radius_H, angle_H = torch.exp(-self.nu_log.exp()), self.theta_log.exp()
        return torch.stack([radius_H * angle_H.cos(), radius_H * angle_H.sin()], dim=-1)

    def forward(self, hidden: Tensor, scan: Scan) -> Tensor:
        """The states, `[..., 2 H]`: of each channel the real and the imaginary part.

        Args:
            hidden: x, `[..., D]`.
            scan: computes the recurrence.
        """
        gamma_H1 = self.gamma_log.exp()[:, None]
        # Scaling the weights costs less than scaling their products.
        weight, bias = self.weight * gamma_H1[..., None], self.bias * gamma_H1
        inputs = F.linear(hidden, weight.flatten(0, 1), bias.flatten())
        return scan(inputs.unflatten(-1, (-1, 2)), self.decay()).flatten(-2)


class Block(nn.Module):
    """`y = LN(x + Drop(Re(C h) + c))` over the states h, then `LN(y + Drop(W2 Drop(gelu(W1 y))))` of width 4 D.

    Args:
        hidden_size: D.
        dropout: probability of dropping an element.
    """

    def __init__(self, hidden_size: int, dropout: float) -> None:
        super().__init__()
        self.recurrence = Recurrence(hidden_size)
        # The real part of a complex product is a real one: the column of an imaginary part holds -Im C.
        self.output = nn.Linear(4 * hidden_size, hidden_size)
        self.output_norm = nn.LayerNorm(hidden_size, eps=LAYER_NORM_EPS)
        self.expand = nn.Linear(hidden_size, 4 * hidden_size)
        self.contract = nn.Linear(4 * hidden_size, hidden_size)
        self.norm = nn.LayerNorm(hidden_size, eps=LAYER_NORM_EPS)
        self.dropout = Dropout(dropout)

    def reset_parameters(self) -> None:
        """See `LRURec.reset_parameters`."""
        self.recurrence.reset_parameters()
        for layer in (self.output, self.expand, self.contract):
            draw_weights(layer.weight, layer.bias)

    def forward(self, hidden: Tensor, scan: Scan, pick: Callable[[Tensor], Tensor] | None = None) -> Tensor:
        """The block's output, `[..., D]`.

        Args:
            hidden: x, `[..., D]`.
            scan: see `Recurrence.forward`.
            pick: chooses the positions whose output is wanted; None: all.
        """
        states = self.recurrence(hidden, scan)
        if pick is not None:
            hidden, states = pick(hidden), pick(states)
        hidden = self.output_norm(hidden + self.dropout(self.output(states)))
        inner = self.dropout(F.gelu(self.expand(hidden)))
        return self.norm(hidden + self.dropout(self.contract(inner)))


class LRURec(CausalBackbone):
    """Normalised item vectors without positions, and blocks of a linear recurrence and a feed-forward layer.

    Items are scored by `h E^T + bias`: the user vector ends with a 1 that is multiplied with the item's bias.

    Unlike in the public code, the vector of padding is not trained, and a history's first item is no target that
    padding predicts: all backbones train on the same targets.

    Args:
        item_embedding: see `Backbone`.
        num_users: not used.
        max_len: the longest input, in items.
        num_layers: number of blocks.
        dropout: probability of dropping an element of the item vectors, and of what each layer adds.

    Raises:
        ValueError: if a number is out of its range.
    """

    packs = True
    draws_by_dropout = True

    def __init__(
        self,
        item_embedding: ItemEmbedding,
        num_users: int,
        max_len: int,
        *,
        num_layers: int = 2,
        dropout: float = 0.2,
    ) -> None:
        super().__init__(item_embedding, max_len)
        require_positive(num_layers=num_layers)
        require_probability(dropout=dropout)
        self.norm = nn.LayerNorm(self.hidden_size, eps=LAYER_NORM_EPS)
        self.dropout = Dropout(dropout)
        self.blocks = nn.ModuleList(Block(self.hidden_size, dropout) for _ in range(num_layers))
        self.output_bias_I = nn.Parameter(torch.empty(item_embedding.num_items + 1))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialises as the authors: all but layer norms and λ, γ from one cut normal distribution, biases too."""
        for block in self.blocks.children():
            assert isinstance(block, Block)
            block.reset_parameters()
        assert self.output_bias_I is not None
        draw_weights(self.output_bias_I)
        with torch.no_grad():
            self.output_bias_I[PADDING] = 0

    def all_positions(
        self,
        items_BL: Tensor,
        lengths_B: Tensor,
        users_B: Tensor,
        table_ID: Tensor | None = None,
        packing: Packing | None = None,
    ) -> Tensor:
        if goes_by_steps(items_BL):
            order = order_of_rows(lengths_B, items_BL.shape[1]) if packing is None else order_of_packing(packing)
            hidden_TD = self.encoded(order.take(items_BL), by_steps(order), table_ID)
            return with_constant(order.restore(hidden_TD, items_BL.shape))
        return with_constant(self.encoded(items_BL, self.by_doubling(packing), table_ID))

    def forward(self, items_BL: Tensor, lengths_B: Tensor, users_B: Tensor, table_ID: Tensor | None = None) -> Tensor:
        if goes_by_steps(items_BL):
            order = order_of_rows(lengths_B, items_BL.shape[1])
            pick = partial(torch.index_select, dim=0, index=order.last_S)
            return with_constant(self.encoded(order.take(items_BL), by_steps(order), table_ID, pick))
        pick = partial(last_position, lengths_B=lengths_B)
        return with_constant(self.encoded(items_BL, self.by_doubling(None), table_ID, pick))

    def encoded(
        self, items: Tensor, scan: Scan, table_ID: Tensor | None, pick: Callable[[Tensor], Tensor] | None = None
    ) -> Tensor:
        """The last block's output, `[..., D]`; only at some positions if `pick` is given (see `Block.forward`)."""
        hidden = self.norm(self.dropout(self.embed(items, table_ID)))
        *earlier, last = self.blocks
        for block in earlier:
            hidden = block(hidden, scan)
        found: Tensor = last(hidden, scan, pick)
        return found

    def by_doubling(self, packing: Packing | None) -> Scan:
        """The recurrence over rows."""
        positions_BL = None if packing is None else packing.positions_BL
        return partial(states_by_doubling, longest=self.max_len, positions_BL=positions_BL)


def goes_by_steps(items_BL: Tensor) -> bool:
    """Whether the recurrence goes by steps: on a CPU, but not in an exported graph, whose shapes may hold no values."""
    return items_BL.device.type == "cpu" and not torch.compiler.is_exporting()


def by_steps(order: StepOrder) -> Scan:
    """The recurrence in the order of steps."""
    return partial(states_by_steps, counts=order.counts)


def with_constant(hidden: Tensor) -> Tensor:
    """Puts a 1 behind each vector: `[..., E]`."""
    return F.pad(hidden, (0, 1), value=1.0)


def draw_weights(*parameters: Tensor) -> None:
    """Initialises weights as the authors: from a normal distribution that is cut."""
    for parameter in parameters:
        nn.init.trunc_normal_(parameter, std=STD, a=-CUT, b=CUT)
