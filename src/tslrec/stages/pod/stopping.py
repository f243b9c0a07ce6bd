"""POD's end of a training: at the fifth epoch that is not the best, however many better ones were between them."""

from __future__ import annotations

from typing import Any

import lightning


class TooManyWorse(lightning.Callback):
    """Stops once a number of validations were not the best; a better one does not reset the count.

    So does the public code (lileipisces/POD fd31697); early stopping would count only those since the best one.

    Args:
        monitored: name of the validation metric; lower is better.
        most: validations that are not the best until training stops.

    Attributes:
        best: the smallest value so far.
        worse: validations so far that were not the best.
    """

    def __init__(self, monitored: str, most: int) -> None:
        self.monitored = monitored
        self.most = most
        self.best = float("inf")
        self.worse = 0

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        if trainer.sanity_checking:
            return
        now = float(trainer.callback_metrics[self.monitored])
        if now < self.best:
            self.best = now
        else:
            self.worse += 1
        if self.worse >= self.most:
            trainer.should_stop = True

    def state_dict(self) -> dict[str, Any]:
        return {"best": self.best, "worse": self.worse}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best, self.worse = state_dict["best"], state_dict["worse"]
