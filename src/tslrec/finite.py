"""Stops a training before an optimizer step that would spoil its weights."""

from __future__ import annotations

import lightning
import torch
from torch import Tensor

from tslrec.errors import UserError
from tslrec.ranks import in_any_process


class FiniteSteps(lightning.Callback):
    """Refuses a loss or a gradient that is not finite; the weights and the last checkpoint stay as they are.

    Where a strategy keeps the gradients to itself (DeepSpeed) only the loss is seen here.

    Args:
        stage: for the message.
        remedy: what a person can do about it.
    """

    def __init__(self, stage: str, remedy: str) -> None:
        self.stage = stage
        self.remedy = remedy

    def on_before_backward(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, loss: Tensor
    ) -> None:
        if in_any_process(~torch.isfinite(loss.detach())):
            self.refuse("loss", trainer)

    def on_before_optimizer_step(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if not gradients:
            return
        # Not the usual norm: squares of finite numbers can overflow.
        largest = torch.stack(torch._foreach_norm(gradients, float("inf"))).max()
        if in_any_process(~torch.isfinite(largest)):
            self.refuse("gradient", trainer)

    def refuse(self, what: str, trainer: lightning.Trainer) -> None:
        """Ends the training, in all processes.

        Raises:
            UserError: always.
        """
        raise UserError(
            f"{self.stage}: the {what} is not finite at step {trainer.global_step} (epoch {trainer.current_epoch}, "
            f"batch {trainer.fit_loop.batch_idx}); {self.remedy}"
        )
