"""Keeps the weights of the best validation, and stops once none is better any more."""

from __future__ import annotations

from typing import Any

import lightning
from lightning.pytorch.callbacks import EarlyStopping
from torch import Tensor, nn

from tslrec.config import MONITORED
from tslrec.zero import whole

HELD_BACK_ERROR = "validation/loss"


class BestWeights(lightning.Callback):
    """A copy in memory of the weights at the best evaluation so far; part of a checkpoint, as every callback's state.

    Args:
        monitored: a metric.
        mode: whether its `max` or its `min` is best.

    Attributes:
        epoch: the epoch of the best evaluation, from 0.
        metrics: all validation metrics of that evaluation.
    """

    def __init__(self, monitored: str, mode: str = "max") -> None:
        self.monitored = monitored
        self.mode = mode
        self.epoch = -1
        self.metrics: dict[str, float] = {}
        self.weights: dict[str, Tensor] = {}

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        now = {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("validation")}
        if not self.metrics or self.is_better(now[self.monitored], self.metrics[self.monitored]):
            self.epoch = trainer.current_epoch
            self.metrics = now
            self.keep(pl_module)

    def is_better(self, now: float, before: float) -> bool:
        return now > before if self.mode == "max" else now < before

    def keep(self, module: lightning.LightningModule) -> None:
        """Copies what is best so far."""
        with whole(trained(module)):
            kept = kept_weights(module)
            self.weights = {name: value.detach().cpu().clone() for name, value in kept.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "metrics": self.metrics, "weights": self.weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.epoch, self.metrics, self.weights = (state_dict[name] for name in ("epoch", "metrics", "weights"))

    def restore(self, module: lightning.LightningModule) -> None:
        """Puts the best weights back."""
        with whole(trained(module), changed=True):
            module.load_state_dict(self.weights, strict=module.strict_loading)


def trained(module: lightning.LightningModule) -> list[nn.Parameter]:
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def kept_weights(module: lightning.LightningModule) -> dict[str, Tensor]:
    """All weights; of a module that does without its frozen ones in a checkpoint, the trained ones."""
    weights: dict[str, Tensor] = module.state_dict()
    if module.strict_loading:
        return weights
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    return {name: value for name, value in weights.items() if name in trained}


def selection_callbacks(protocol: str, patience: int) -> tuple[BestWeights, list[Any]]:
    """Both callbacks, watching the validation NDCG@10 of one ranking protocol (`masked` or `unmasked`)."""
    best = BestWeights(MONITORED.format(protocol=protocol))
    return best, [best, stopping(best, patience)]


def stopping(best: BestWeights, patience: int) -> EarlyStopping:
    """Stops after some validations of which none was the best."""
    return EarlyStopping(best.monitored, mode=best.mode, patience=patience, check_finite=True)
