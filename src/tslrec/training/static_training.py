"""Trains a next-item module by steps that never wait for the device: what a CUDA graph can hold.

Shapes: W windows of a step, F fields of a window, T targets, E size of a user vector, I items (row 0 of a table is
padding), D hidden size, L positions of a row, B rows.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from tslrec.data.sequence_batch import SequenceBatch
from tslrec.data.static_inputs import StaticStep, static_step
from tslrec.data.static_layouts import StepShape
from tslrec.data.step_groups import StepGroup
from tslrec.models.backbones.base import Backbone, CausalBackbone
from tslrec.training.delayed_copy import DelayedCopy
from tslrec.training.losses import softmax_loss
from tslrec.training.step_graphs import StepGraphs, launcher_for
from tslrec.training.target_mix import TargetMix


class StaticTraining:
    """The optimizer steps of one training, on one device, with the softmax over all items.

    A step whose loss or gradient is not finite changes no weight, and neither does any later one: the training ends
    with the weights before it.

    Args:
        backbone: what is trained.
        optimizer: Adam with the fused kernel.
        loss_sums: float64 on the device: the loss summed over targets, and the number of targets; a step adds to it.
        mix: see `softmax_loss`; the same of every target.

    Attributes:
        nonfinite: float32 scalar on the device, 1 if a loss or a gradient was not finite, else 0.
        mean_loss: of the epoch, as of the end of the group before; None in the first group.
        seen_nonfinite: the value of `nonfinite` as of then.
    """

    def __init__(
        self, backbone: Backbone, optimizer: torch.optim.Optimizer, loss_sums: Tensor, mix: TargetMix | None = None
    ) -> None:
        self.backbone = backbone
        self.mix = mix
        self.optimizer = optimizer
        self.loss_sums = loss_sums
        self.device = loss_sums.device
        self.nonfinite = torch.zeros((), device=self.device)
        self.one = torch.ones((), device=self.device)
        # The fused kernel then leaves weights and state as they are where this is 1, as under a gradient scaler.
        self.optimizer.found_inf = self.nonfinite  # type: ignore[attr-defined]
        self.launcher = launcher_for(self.device)
        self.graphs: StepGraphs | None = None
        self.items_N: Tensor | None = None
        self.late = DelayedCopy()
        self.mean_loss: float | None = None
        self.seen_nonfinite = False
        for options in optimizer.param_groups:
            options["capturable"] = self.device.type == "cuda"

    def run(self, group: StepGroup) -> None:
        """Runs the steps of a group; the device may be still at work on them at the end."""
        if self.graphs is None:
            self.items_N = group.items.on(self.device)
            self.graphs = StepGraphs(self.step, torch.empty_like(group.fields_SFW[0]), self.launcher)
        with self.launcher.running():
            for fields_FW, shape in zip(group.fields_SFW, group.shapes, strict=True):
                self.graphs.run(fields_FW, shape)
        numbers = self.late.exchange(torch.cat([self.loss_sums, self.nonfinite.double()[None]]))
        if numbers is not None:
            total, targets, nonfinite = numbers.tolist()
            self.mean_loss, self.seen_nonfinite = total / targets, nonfinite > 0

    def step(self, fields_FW: Tensor, shape: StepShape) -> None:
        """One optimizer step; everything that a graph holds.

        Args:
            fields_FW: the step's windows.
            shape: of the step.
        """
        assert self.items_N is not None
        step = static_step(fields_FW, self.items_N, shape)
        table_ID = self.backbone.item_embedding.table()
        summed = summed_loss(self.backbone, step, table_ID, self.mix)
        count = step.weights_T.sum()
        loss = summed / count + self.backbone.regularization(table_ID)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.note_nonfinite(loss.detach())
        self.optimizer.step()
        # Inside a capture, this gives the memory of the gradients back to the pool that the graphs share.
        self.optimizer.zero_grad(set_to_none=True)
        self.loss_sums += torch.stack([summed.detach().double(), count.double()])

    def note_nonfinite(self, loss: Tensor) -> None:
        """Sets `nonfinite` if the loss or a gradient is not finite."""
        groups = self.optimizer.param_groups
        gradients = [each.grad for group in groups for each in group["params"] if each.grad is not None]
        self.nonfinite.copy_(torch.maximum(self.nonfinite, (~torch.isfinite(loss)).float()))
        # Multiplies the gradients by one; as a single kernel it is faster than a norm of each.
        torch._amp_foreach_non_finite_check_and_unscale_(gradients, self.nonfinite, self.one)


def summed_loss(backbone: Backbone, step: StaticStep, table_ID: Tensor, mix: TargetMix | None = None) -> Tensor:
    """Cross-entropy over all items, summed over the targets that count.

    Args:
        backbone: gives the user vectors.
        step: the data.
        table_ID: the item table.
        mix: see `softmax_loss`.
    """
    user_TE = torch.cat([user_vectors(backbone, rows, step.places_T, table_ID) for rows in step.inputs])
    return softmax_loss(user_TE, backbone.output_table(table_ID), step.targets_T, step.weights_T, mix)


def user_vectors(backbone: Backbone, rows: SequenceBatch, places_T: Tensor | None, table_ID: Tensor) -> Tensor:
    """User vectors, `[T, E]`: at some positions of the rows, or after each row's last item, `[B, E]`.

    Args:
        backbone: gives them.
        rows: the input.
        places_T: the positions, counted through all rows; None: the last one of each row.
        table_ID: the item table.
    """
    if places_T is None:
        return backbone(rows.items_BL, rows.lengths_B, rows.users_B, table_ID)
    causal = cast(CausalBackbone, backbone)
    hidden_BLE = causal.all_positions(rows.items_BL, rows.lengths_B, rows.users_B, table_ID, rows.packing)
    return hidden_BLE.flatten(0, 1).index_select(0, places_T)
