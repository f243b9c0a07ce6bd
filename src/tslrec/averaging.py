"""An exponential moving average of the trained weights: what is validated, selected and kept in their place."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import lightning
import torch
from torch import Tensor, nn

WARM_UP = 10
"""The average after s steps forgets no slower than (1 + s) / (WARM_UP + s), so that it leaves the start behind soon."""


class AveragedWeights(lightning.Callback):
    """Averages the weights over the optimizer steps (Polyak and Juditsky 1992, with exponential forgetting).

    The training itself goes on with its own weights. Evaluations see the average, and so does every callback that
    stands before this one and looks at the module when an evaluation ends. Lightning's own `WeightAveraging` swaps
    back before that, and keeps a second whole module, its frozen tables included.

    Args:
        decay: how much of the average a step keeps, below 1; 1 / (1 − decay) steps count.
    """

    def __init__(self, decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self.average: dict[str, Tensor] = {}

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.update(pl_module)

    @torch.no_grad()
    def update(self, module: nn.Module) -> None:
        """Adds the weights after a step to the average."""
        weights = dict(trained_weights(module))
        if not self.average:
            self.average = {name: value.clone() for name, value in weights.items()}
        kept = min(self.decay, (1 + self.steps) / (WARM_UP + self.steps))
        for name, value in weights.items():
            # A checkpoint gives it back on the CPU.
            self.average[name] = self.average[name].to(value.device)
        torch._foreach_lerp_([self.average[name] for name in weights], list(weights.values()), 1 - kept)
        self.steps += 1

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.swap(pl_module)

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.swap(pl_module)

    @torch.no_grad()
    def swap(self, module: nn.Module) -> None:
        """Exchanges weights and average; does nothing before the first step."""
        for name, weight in trained_weights(module):
            if name in self.average:
                held = weight.clone()
                weight.copy_(self.average[name])
                self.average[name].copy_(held)

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "average": self.average}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.steps, self.average = state_dict["steps"], state_dict["average"]


def trained_weights(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The parameters that are trained, by name, without their gradients."""
    return ((name, each.detach()) for name, each in module.named_parameters() if each.requires_grad)
