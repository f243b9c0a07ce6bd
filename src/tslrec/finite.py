"""Stops a training before an optimizer step that would spoil its weights."""

from __future__ import annotations

import lightning
import torch

from tslrec.errors import UserError
from tslrec.ranks import in_any_process


class FiniteGradients(lightning.Callback):
    """Refuses a gradient that is not finite; the weights and the last checkpoint stay as they are.

    Where a strategy keeps the gradients to itself (DeepSpeed) there is nothing to see here: it looks after them.

    Args:
        stage: for the message.
    """

    def __init__(self, stage: str) -> None:
        self.stage = stage

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
            raise UserError(
                f"{self.stage}: the gradient is not finite at step {trainer.global_step} (epoch "
                f"{trainer.current_epoch}, batch {trainer.fit_loop.batch_idx}); lower the learning rate"
            )
