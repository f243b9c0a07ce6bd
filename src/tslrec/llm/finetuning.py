"""The Lightning module that every fine-tuning of an adapted language model builds on."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, Generic, Self, TypeVar

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from tslrec.llm.shared_prefix import SharedPrefixLLM
from tslrec.training.best_weights import kept_weights
from tslrec.training.deepspeed_zero import ZeroStrategy, full_numel, partitioned_loading

log = logging.getLogger(__name__)

Model = TypeVar("Model", bound=SharedPrefixLLM[Any])


class LLMFinetuningModule(lightning.LightningModule, Generic[Model]):
    """Builds the model under the strategy, keeps frozen weights out of checkpoints, and sets optimizer and schedule.

    Args:
        make_model: builds the model. Called once per process, after all processes have started, because under ZeRO-3
            each of them loads only its own part of the weights.
        num_steps: optimizer steps of the whole training. Lightning's own estimate would set up the data loaders before
            a checkpoint can restore their position.
        learning_rate: peak of AdamW's learning rate, reached after the warm-up.
        weight_decay: AdamW's; 0 makes it Adam.
        warmup: share of the steps during which the learning rate rises, from 0 to 1.

    Attributes:
        model: the adapted language model, from `setup` on.
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
    ) -> None:
        super().__init__()
        self.make_model = make_model
        self.num_steps = num_steps
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.warmup = warmup
        # Checkpoints lack the frozen weights.
        self.strict_loading = False

    def setup(self, stage: str) -> None:
        """Builds the model and logs how many of its parameters are trained."""
        if hasattr(self, "model"):
            return
        with partitioned_loading(self.trainer.strategy):
            self.model = self.make_model()
        self.model.train()
        trained, everything = full_numel(self.model.trainable_parameters()), full_numel(self.model.parameters())
        log.info(f"{trained:,} of {everything:,} parameters are trained ({trained / everything:.3%})")

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves the module; buffers keep their precision where the parameters are rounded to fewer bits.

        Rounded, the rotary frequencies would put tokens at other positions than in inference, and item embeddings and
        calibration would lose what tells items and users apart.
        """
        before = [(module, name, buffer) for module in self.modules() for name, buffer in module._buffers.items()]
        super()._apply(fn, recurse)
        for module, name, buffer in before:
            moved = module._buffers[name]
            if buffer is not None and moved is not None and moved.dtype.itemsize < buffer.dtype.itemsize:
                module._buffers[name] = buffer.to(moved.device)
        return self

    def cpu(self) -> Self:
        """Leaves the module where it is.

        Lightning calls this after each training and each test. It would copy the whole language model to host memory,
        and back for the next one.
        """
        return self

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Leaves the frozen weights out of the checkpoint: they are loaded from their source again."""
        checkpoint["state_dict"] = kept_weights(self)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW over the trainable parameters, its learning rate updated every step (`rate`)."""
        parameters = self.model.trainable_parameters()
        fused = can_fuse(parameters, self.trainer)
        optimizer = torch.optim.AdamW(parameters, lr=self.learning_rate, weight_decay=self.weight_decay, fused=fused)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: self.rate(step))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def rate(self, step: int) -> float:
        """The learning rate after `step` optimizer steps, as a share of its peak: linear warm-up, a cosine to zero."""
        return rate_at(step, self.num_steps, self.warmup)


def can_fuse(parameters: Sequence[nn.Parameter], trainer: lightning.Trainer) -> bool | None:
    """Whether one kernel can update all parameters: all on GPUs, and neither DeepSpeed nor `-mixed` precision.

    DeepSpeed gives the optimizer other parameters later. Lightning refuses to clip gradients for a fused optimizer
    under mixed precision, because it could scale them itself.

    Returns:
        True, or None for PyTorch's own choice.
    """
    on_gpus = all(parameter.is_cuda for parameter in parameters)
    others = isinstance(trainer.strategy, ZeroStrategy) or "mixed" in str(trainer.precision)
    return True if on_gpus and not others else None


def rate_at(step: int, steps: int, warmup: float) -> float:
    """The learning rate at a step as a share of its peak: linear warm-up, then a cosine to zero.

    Args:
        step: optimizer steps that are done.
        steps: optimizer steps of the whole training.
        warmup: share of `steps` that the warm-up takes; it takes one step at least.
    """
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))
