"""Stops a training before weights that are NaN or infinite are kept anywhere."""

from __future__ import annotations

from typing import Any

import lightning
import torch
from lightning.pytorch.plugins import MixedPrecision
from torch import Tensor

from tslrec.system import devices
from tslrec.system.errors import UserError
from tslrec.system.processes import in_any_process, least_of_any_process

CHECK_EVERY = 50
"""Optimizer steps after which a GPU's flags are read at the latest."""

NEVER = 2**62
"""In the place of a step's index: all steps so far were finite."""


class NonFiniteGuard(lightning.Callback):
    """Raises if the loss or a gradient is not finite; the last checkpoint is left as it is.

    On a CPU it raises before the optimizer step, so that the weights are left as they are, too. On a GPU the answer
    stays on the device, because reading it would make every step wait: it is read before each checkpoint, validation
    and end of an epoch, and after `CHECK_EVERY` steps at the latest. By then the weights in memory may be spoilt, but
    no checkpoint and no selected weights ever are. In both cases the message names the first step that was not finite.

    Under DeepSpeed, which holds the gradients itself, only the loss is checked; also with a gradient scaler (precision
    16-mixed), which tries scales at which gradients overflow, and leaves out those steps.

    Args:
        stage: the stage's name, for the message.
        remedy: what to do about it, for the message.
    """

    def __init__(self, stage: str, remedy: str) -> None:
        self.stage = stage
        self.remedy = remedy
        self.loss: Tensor | None = None
        """Of the step that runs, where answers are read late."""
        self.places: list[str] = []
        """Where each step since the last reading stands in the training, for the message."""
        self.first_bad_2: Tensor | None = None
        """Indices into `places`: the first step whose loss, and the first one whose gradients, were not finite."""

    def on_before_backward(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, loss: Tensor
    ) -> None:
        if devices.queues_work(loss.device):
            self.loss = loss.detach()
        elif in_any_process(~torch.isfinite(loss.detach())):
            self.refuse("loss", trainer)

    def on_before_optimizer_step(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        precision = trainer.precision_plugin
        scales = isinstance(precision, MixedPrecision) and precision.scaler is not None
        largest = None if scales else largest_gradient(optimizer)
        if self.loss is not None:
            self.note(trainer, self.loss, largest)
        elif largest is not None and in_any_process(~torch.isfinite(largest)):
            self.refuse("gradient", trainer)

    def note(self, trainer: lightning.Trainer, loss: Tensor, largest: Tensor | None) -> None:
        """Notes on the device whether this step is finite, without waiting for it.

        Args:
            trainer: says at which step.
            loss: the step's loss.
            largest: the largest gradient; None if the optimizer has none.
        """
        if self.first_bad_2 is None:
            self.first_bad_2 = torch.full((2,), NEVER, device=loss.device)
        both_2 = torch.stack([loss.float(), (torch.zeros_like(loss) if largest is None else largest).float()])
        # `masked_fill_` takes the number as an argument of its kernel; `torch.where` would copy it to the device first.
        self.first_bad_2.masked_fill_(~torch.isfinite(both_2) & (self.first_bad_2 == NEVER), len(self.places))
        self.places.append(self.place(trainer))
        self.loss = None

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any, **__: Any) -> None:
        if len(self.places) >= CHECK_EVERY:
            self.read(trainer)

    def on_save_checkpoint(self, trainer: lightning.Trainer, *_: Any, **__: Any) -> None:
        self.read(trainer)

    def on_validation_start(self, trainer: lightning.Trainer, *_: Any, **__: Any) -> None:
        self.read(trainer)

    def on_train_epoch_end(self, trainer: lightning.Trainer, *_: Any, **__: Any) -> None:
        self.read(trainer)

    def read(self, trainer: lightning.Trainer) -> None:
        """Waits for the device, and raises if a step since the last reading was not finite. All ranks call it.

        Args:
            trainer: whose training ends.

        Raises:
            UserError: if so, on every rank.
        """
        if self.first_bad_2 is None or not self.places:
            return
        places, self.places = self.places, []
        loss, gradient = least_of_any_process(self.first_bad_2).tolist()
        self.first_bad_2.fill_(NEVER)
        if (first := min(loss, gradient)) < NEVER:
            # A loss that is not finite makes the gradients so: the loss says more.
            self.refuse("loss" if loss == first else "gradient", trainer, places[first])

    def place(self, trainer: lightning.Trainer) -> str:
        """The step that runs, in words."""
        return f"step {trainer.global_step} (epoch {trainer.current_epoch}, batch {trainer.fit_loop.batch_idx})"

    def refuse(self, what: str, trainer: lightning.Trainer, place: str | None = None) -> None:
        """Ends the training; every rank calls it.

        Args:
            what: `loss` or `gradient`.
            trainer: whose training ends.
            place: the step, in words; None: the one that runs.

        Raises:
            UserError: always.
        """
        raise UserError(f"{self.stage}: the {what} is not finite at {place or self.place(trainer)}; {self.remedy}")


def largest_gradient(optimizer: torch.optim.Optimizer) -> Tensor | None:
    """The largest absolute value of any gradient, a scalar on the device; None if there are no gradients."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return None
    # Not the Euclidean norm: squares of finite numbers can overflow.
    return torch.stack(torch._foreach_norm(gradients, float("inf"))).max()
