"""Weight selection: keeps the weights of the best validation, and early stopping."""

from __future__ import annotations

from typing import Any

import lightning
from lightning.pytorch.callbacks import EarlyStopping
from torch import Tensor, nn

from tslrec.settings.metrics import MONITORED
from tslrec.training.deepspeed_zero import gathered

HELD_BACK_ERROR = "validation/loss"
"""The metric that selects the preference SFT's weights: the squared error on the held-back users, lower is better."""


class BestWeights(lightning.Callback):
    """Keeps a copy of the weights at the best validation so far, on the CPU; it is part of every checkpoint.

    Args:
        monitored: name of the validation metric that decides.
        mode: `max` if higher is better, `min` if lower is.

    Attributes:
        epoch: the epoch of the best validation, from 0; -1 before the first one.
        metrics: all metrics of that validation.
        weights: the copy, by parameter name.
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
        """Whether a value of the metric is strictly better than another; of equal ones the earlier is kept."""
        return now > before if self.mode == "max" else now < before

    def keep(self, module: lightning.LightningModule) -> None:
        """Copies the module's weights as the best ones; all ranks call it."""
        with gathered(trained(module)):
            kept = kept_weights(module)
            self.weights = {name: value.detach().cpu().clone() for name, value in kept.items()}

    def state_dict(self) -> dict[str, Any]:
        return {"epoch": self.epoch, "metrics": self.metrics, "weights": self.weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.epoch, self.metrics, self.weights = (state_dict[name] for name in ("epoch", "metrics", "weights"))

    def restore(self, module: lightning.LightningModule) -> None:
        """Loads the best weights into the module; all ranks call it."""
        with gathered(trained(module), changed=True):
            module.load_state_dict(self.weights, strict=module.strict_loading)


def trained(module: lightning.LightningModule) -> list[nn.Parameter]:
    """The parameters that are not frozen."""
    return [parameter for parameter in module.parameters() if parameter.requires_grad]


def kept_weights(module: lightning.LightningModule) -> dict[str, Tensor]:
    """All weights, or only the trainable ones where `strict_loading` is False."""
    weights: dict[str, Tensor] = module.state_dict()
    if module.strict_loading:
        return weights
    trained = {name for name, parameter in module.named_parameters() if parameter.requires_grad}
    return {name: value for name, value in weights.items() if name in trained}


def selection_callbacks(protocol: str, patience: int) -> tuple[BestWeights, list[Any]]:
    """Weight selection and early stopping by validation NDCG@10.

    Args:
        protocol: the ranking protocol whose NDCG@10 decides, `masked` or `unmasked`.
        patience: validations without a better NDCG@10 after which training stops.

    Returns:
        The callback with the best weights, and both callbacks for the trainer.
    """
    best = BestWeights(MONITORED.format(protocol=protocol))
    return best, [best, early_stopping(best, patience)]


def early_stopping(best: BestWeights, patience: int) -> EarlyStopping:
    """Stops training after `patience` validations without a new best one, or if the metric is not finite."""
    return EarlyStopping(best.monitored, mode=best.mode, patience=patience, check_finite=True)
