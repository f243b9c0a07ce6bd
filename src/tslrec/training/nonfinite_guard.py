"""Stops a training before an optimizer step that would make its weights NaN or infinite."""

from __future__ import annotations

import lightning
import torch
from torch import Tensor

from tslrec.system.errors import UserError
from tslrec.system.processes import in_any_process


class NonFiniteGuard(lightning.Callback):
    """Raises if the loss or a gradient is not finite; the weights and the last checkpoint are left as they are.

    Under DeepSpeed, which holds the gradients itself, only the loss is checked.

    Args:
        stage: the stage's name, for the message.
        remedy: what to do about it, for the message.
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
        # Not the Euclidean norm: squares of finite numbers can overflow.
        largest = torch.stack(torch._foreach_norm(gradients, float("inf"))).max()
        if in_any_process(~torch.isfinite(largest)):
            self.refuse("gradient", trainer)

    def refuse(self, what: str, trainer: lightning.Trainer) -> None:
        """Ends the training; every rank calls it in the same step.

        Args:
            what: `loss` or `gradient`.
            trainer: says at which step.

        Raises:
            UserError: always.
        """
        raise UserError(
            f"{self.stage}: the {what} is not finite at step {trainer.global_step} (epoch {trainer.current_epoch}, "
            f"batch {trainer.fit_loop.batch_idx}); {self.remedy}"
        )
