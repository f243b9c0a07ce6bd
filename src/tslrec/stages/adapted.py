"""What the trainings of adapted language models have in common."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler

from tslrec.llm.prompted import PromptedLLM
from tslrec.stages.selection import kept_weights
from tslrec.zero import partitioned_loading, whole_size

Model = TypeVar("Model", bound=PromptedLLM)


class AdaptedLLMModule(lightning.LightningModule, Generic[Model]):
    """Makes the model where the strategy wants it, keeps frozen weights out of checkpoints, and has the schedule.

    Args:
        make_model: called once in each process, when all of them are there: only then can each load its own part.
        num_steps: optimizer steps of the whole training. Lightning's own estimate would set up the data before a
            checkpoint can tell them where to go on.
        learning_rate: at its peak, after the warm-up.
        weight_decay: AdamW's; 0 makes it Adam.
        warmup: share of the steps.
        tell: says a line to the person.
    """

    model: Model

    def __init__(
        self,
        make_model: Callable[[], Model],
        *,
        num_steps: int,
        learning_rate: float,
        weight_decay: float,
        warmup: float,
        tell: Callable[[str], None] = print,
    ) -> None:
        super().__init__()
        self.tell = tell
        self.make_model = make_model
        self.num_steps = num_steps
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.warmup = warmup
        # Checkpoints hold no frozen weights.
        self.strict_loading = False

    def setup(self, stage: str) -> None:
        if hasattr(self, "model"):
            return
        with partitioned_loading(self.trainer.strategy):
            self.model = self.make_model()
        self.model.train()
        trained, everything = whole_size(self.model.trainable_parameters()), whole_size(self.model.parameters())
        self.tell(f"{trained:,} of {everything:,} parameters are trained ({trained / everything:.3%})")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps only what is trained: the frozen language model is known by its source."""
        checkpoint["state_dict"] = kept_weights(self)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW over what is trainable; the learning rate rises linearly, then falls along a cosine to zero."""
        optimizer = torch.optim.AdamW(
            self.model.trainable_parameters(), lr=self.learning_rate, weight_decay=self.weight_decay
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(step, self.num_steps, self.warmup))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def rate_at(step: int, steps: int, warmup: float) -> float:
    """The learning rate's share of its peak: linear warm-up, then a cosine."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))
