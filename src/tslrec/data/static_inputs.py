"""Makes the tensors of an optimizer step from its list of windows, on the device: index arithmetic in fixed shapes.

Nothing here depends on the values of a tensor, so that a CUDA graph can hold it.

Shapes: W windows of a step, F fields of a window, N interactions of the data set, B rows of an input, L positions of a
row, P = B × L of them, T targets.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tslrec.data.packing import Packing
from tslrec.data.sequence_batch import SequenceBatch
from tslrec.data.static_layouts import LENGTHS, PLACES, SKIPPED, STARTS, USERS, StepShape


class StaticStep(NamedTuple):
    """The tensors of an optimizer step.

    Attributes:
        inputs: sequences that run through the model together; their `targets` are those of `targets_T` for prefixes,
            and have no meaning otherwise.
        places_T: int64, the place of each target among the P positions of the only input; None for prefixes, whose
            targets have the order of the inputs.
        targets_T: int64, item ids; 0 for a target that does not count.
        weights_T: float32, 1 for a target that counts, else 0.
    """

    inputs: tuple[SequenceBatch, ...]
    places_T: Tensor | None
    targets_T: Tensor
    weights_T: Tensor


def static_step(fields_FW: Tensor, items_N: Tensor, shape: StepShape) -> StaticStep:
    """The tensors of a step.

    Args:
        fields_FW: the windows, see `static_layouts`.
        items_N: the flat array of interactions, int64.
        shape: of the step.
    """
    if shape.prefixes:
        return prefix_step(fields_FW, items_N, shape)
    places_T, targets_T, weights_T = position_targets(fields_FW, items_N, shape.targets)
    (rows, width) = shape.inputs[0]
    if shape.packed:
        inputs = packed_input(fields_FW, items_N, rows, width)
    else:
        items_BL = padded(fields_FW[STARTS], fields_FW[LENGTHS], items_N, width)
        inputs = SequenceBatch(items_BL, fields_FW[LENGTHS], fields_FW[USERS], items_BL)
    return StaticStep((inputs,), places_T, targets_T, weights_T)


def prefix_step(fields_FW: Tensor, items_N: Tensor, shape: StepShape) -> StaticStep:
    """A step whose windows have one target each, after their last item."""
    counted_W = fields_FW[LENGTHS] > fields_FW[SKIPPED]
    targets_W = items_N[fields_FW[STARTS] + fields_FW[LENGTHS]] * counted_W
    inputs, begin = [], 0
    for rows, width in shape.inputs:
        part_FB = fields_FW[:, begin : begin + rows]
        items_BL = padded(part_FB[STARTS], part_FB[LENGTHS], items_N, width)
        inputs.append(SequenceBatch(items_BL, part_FB[LENGTHS], part_FB[USERS], targets_W[begin : begin + rows]))
        begin += rows
    return StaticStep(tuple(inputs), None, targets_W, counted_W.float())


def padded(starts_B: Tensor, lengths_B: Tensor, items_N: Tensor, width: int) -> Tensor:
    """Ranges of the flat array as rows `[B, L]`, padded with 0 on the right."""
    column_L = torch.arange(width, device=items_N.device)
    inside_BL = column_L < lengths_B[:, None]
    return items_N[torch.where(inside_BL, starts_B[:, None] + column_L, 0)] * inside_BL


def packed_input(fields_FW: Tensor, items_N: Tensor, rows: int, width: int) -> SequenceBatch:
    """Rows that hold several windows: each position finds the window that covers it by a search among their places."""
    place_P = torch.arange(rows * width, device=items_N.device)
    # The first window lies at place 0, so there is one at or before every position.
    window_P = torch.searchsorted(fields_FW[PLACES], place_P, right=True) - 1
    within_P = place_P - fields_FW[PLACES][window_P]
    inside_P = within_P < fields_FW[LENGTHS][window_P]
    items_P = items_N[torch.where(inside_P, fields_FW[STARTS][window_P] + within_P, 0)] * inside_P
    packing = Packing(torch.where(inside_P, window_P, -1).view(rows, width), (within_P * inside_P).view(rows, width))
    unused_B = fields_FW.new_zeros(rows)
    items_BL = items_P.view(rows, width)
    return SequenceBatch(items_BL, unused_B, unused_B, items_BL, packing=packing)


def position_targets(fields_FW: Tensor, items_N: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """The places, items and weights of the targets of all positions, each `[T]`, window by window.

    Args:
        fields_FW: the windows.
        items_N: the flat array of interactions.
        count: T, at least as many as count.
    """
    counts_W = fields_FW[LENGTHS] - fields_FW[SKIPPED]
    ends_W = counts_W.cumsum(0)
    number_T = torch.arange(count, device=items_N.device)
    window_T = torch.searchsorted(ends_W, number_T, right=True).clamp(max=len(ends_W) - 1)
    column_T = number_T - (ends_W - fields_FW[LENGTHS])[window_T]
    counted_T = number_T < ends_W[-1]
    places_T = (fields_FW[PLACES][window_T] + column_T) * counted_T
    source_T = torch.where(counted_T, fields_FW[STARTS][window_T] + column_T + 1, 0)
    return places_T, items_N[source_T] * counted_T, counted_T.float()
