"""Both forms of the linear recurrence are a plain loop in float64, forward and backward, and restart in packed rows.

Shapes: B rows, L positions, T positions of all sequences, H channels, 2 real and imaginary part.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from support.devices import assert_close
from support.packed import packing_of
from tslrec.data.packing import Packing
from tslrec.models.linear_recurrence import states_by_doubling, states_by_steps
from tslrec.models.step_order import order_of_packing, order_of_rows

ROWS = [[9, 1, 4], [3, 5, 6], [14]]
"""Lengths of the sequences of each row."""
SHAPES = {"one position": [[1], [1]], "one row": [[7]], "packed": ROWS, "rows that end": [[3], [14], [1]]}
WIDTH, CHANNELS = 15, 6


def drawn(*shape: int) -> tuple[Tensor, Tensor]:
    """Inputs and a λ of any angle whose absolute value is from .3 to .999, in float64."""
    torch.manual_seed(0)
    radius_H, angle_H = torch.rand(CHANNELS).double() * 0.699 + 0.3, torch.rand(CHANNELS).double() * 6.28
    return torch.randn(*shape, CHANNELS, 2).double(), torch.view_as_real(torch.polar(radius_H, angle_H))


def plain_loop(inputs_BLH2: Tensor, decay_H2: Tensor, packing: Packing) -> Tensor:
    """The states, one position after the other; 0 at padding."""
    inputs, decay = torch.view_as_complex(inputs_BLH2), torch.view_as_complex(decay_H2)
    rows = []
    for row in range(len(inputs)):
        states: list[Tensor] = []
        for column in range(WIDTH):
            if packing.sequences_BL[row, column] < 0:
                states.append(0 * decay)
            elif packing.positions_BL[row, column] == 0:
                states.append(inputs[row, column] + 0 * decay)
            else:
                states.append(inputs[row, column] + decay * states[-1])
        rows.append(torch.stack(states))
    return torch.view_as_real(torch.stack(rows))


def by_steps(inputs_BLH2: Tensor, decay_H2: Tensor, packing: Packing) -> Tensor:
    order = order_of_packing(packing)
    states_TH2 = states_by_steps(inputs_BLH2.flatten(0, 1)[order.places_T], decay_H2, order.counts)
    return order.restore(states_TH2.flatten(1), inputs_BLH2.shape[:2]).view_as(inputs_BLH2)


def by_doubling(inputs_BLH2: Tensor, decay_H2: Tensor, packing: Packing) -> Tensor:
    positions_BL = packing.positions_BL.to(inputs_BLH2.device)
    states = states_by_doubling(inputs_BLH2, decay_H2, 14, positions_BL)
    return states * (packing.sequences_BL >= 0)[..., None, None].to(states.device)


FORMS = {"steps": by_steps, "doubling": by_doubling}


@pytest.mark.parametrize("rows", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("form", FORMS)
def test_is_the_plain_loop_in_float64(form: str, rows: list[list[int]], device: torch.device) -> None:
    where = torch.device("cpu") if form == "steps" else device
    packing = packing_of(rows, WIDTH)
    inputs, decay = (each.requires_grad_() for each in drawn(len(rows), WIDTH))
    expected = plain_loop(inputs, decay, packing)
    upstream = torch.randn_like(expected)
    expected_gradients = torch.autograd.grad((expected * upstream).sum(), (inputs, decay))
    for dtype in (torch.float64, torch.float32):
        own_inputs, own_decay = (each.detach().to(where, dtype).requires_grad_() for each in (inputs, decay))
        found = FORMS[form](own_inputs, own_decay, packing)
        gradients = torch.autograd.grad((found * upstream.to(found)).sum(), (own_inputs, own_decay))
        for ours, theirs in zip((found, *gradients), (expected, *expected_gradients), strict=True):
            if dtype == torch.float64:
                torch.testing.assert_close(ours.cpu(), theirs)
            else:
                assert ours.dtype == torch.float32
                largest = max(1.0, float(theirs.detach().abs().max()))
                assert_close(ours / largest, theirs.float() / largest)


def test_a_row_that_holds_one_sequence_needs_no_packing(device: torch.device) -> None:
    inputs, decay = (each.float().to(device) for each in drawn(2, WIDTH))
    packing = packing_of([[14], [14]], WIDTH)
    expected = by_doubling(inputs, decay, packing)[:, :14]
    assert_close(states_by_doubling(inputs, decay, 15, None)[:, :14], expected)


@pytest.mark.parametrize("form", FORMS)
def test_gradients_are_those_of_finite_differences(form: str) -> None:
    packing = packing_of([[2, 1, 3], [4]], WIDTH)
    inputs, decay = (each.requires_grad_() for each in drawn(2, WIDTH))

    def states(inputs_BLH2: Tensor, decay_H2: Tensor) -> Tensor:
        return FORMS[form](inputs_BLH2, decay_H2, packing)

    assert torch.autograd.gradcheck(states, (inputs, decay), fast_mode=True)
    few, few_decay = inputs.detach()[:, :, :2].requires_grad_(), decay.detach()[:2].requires_grad_()
    assert torch.autograd.gradcheck(states, (few, few_decay))


def test_half_precision_inputs_are_computed_in_the_precision_of_the_decay() -> None:
    inputs, decay = drawn(3, WIDTH)
    half = inputs.bfloat16()
    order = order_of_rows(torch.tensor([15, 15, 15]), WIDTH)
    for dtype in (torch.float32, torch.float64):
        expected = states_by_doubling(half.to(dtype), decay.to(dtype), 15, None)
        assert torch.equal(states_by_doubling(half, decay.to(dtype), 15, None), expected)
        by_step = states_by_steps(half.flatten(0, 1)[order.places_T], decay.to(dtype), order.counts)
        assert by_step.dtype == dtype


@pytest.mark.parametrize("form", FORMS)
def test_a_decay_of_half_precision_is_computed_in_float32(form: str) -> None:
    inputs, decay = drawn(len(ROWS), WIDTH)
    packing = packing_of(ROWS, WIDTH)
    inputs, decay = (each.bfloat16().requires_grad_() for each in (inputs, decay))
    exact, exact_decay = (each.detach().float().requires_grad_() for each in (inputs, decay))
    found, expected = FORMS[form](inputs, decay, packing), FORMS[form](exact, exact_decay, packing)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, expected.bfloat16())
    upstream = torch.randn_like(found)
    gradients = torch.autograd.grad(found, (inputs, decay), upstream)
    for ours, theirs in zip(
        gradients, torch.autograd.grad(expected, (exact, exact_decay), upstream.float()), strict=True
    ):
        assert torch.equal(ours, theirs.bfloat16())
