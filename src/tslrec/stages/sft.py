"""Stage 3 of the pipeline: the language model learns to reconstruct users' preferences (paper, Section 4.1, Eq. 1-3).

Shapes: B users of a batch, U users, K clusters, D hidden size of the backbone.
"""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from tslrec.arrays import load_arrays
from tslrec.llm.adapter_files import new_model, read_item_embeddings, save_trained
from tslrec.llm.data import PreferenceBatch, PreferenceDataModule, training_histories, window_preferences
from tslrec.llm.packing import PackedExamples
from tslrec.llm.preference_model import PreferenceLLM
from tslrec.llm.source import resolve
from tslrec.ranks import sum_over_processes
from tslrec.resuming import fit
from tslrec.stages.context import StageContext
from tslrec.stages.selection import kept_weights
from tslrec.zero import whole

VERSION = 3
TOGETHER = True

FINAL_SHARE = 1 / 3
"""The last part of the training over which the final loss is averaged."""

CALIBRATION_USERS = 256
"""How many users tell where the group head's inputs lie before training."""


class PreferenceSFTModule(lightning.LightningModule):
    """Trains a preference model by the squared error of Eq. 3.

    Args:
        model: what is trained.
        mean_preference_K: the mean target over all users; predicting it for everybody is the error to beat.
        sample: users by whom the group head's inputs are standardised before the first step.
        num_steps: optimizer steps of the whole training. Lightning's own estimate would set up the data before a
            checkpoint can tell them where to go on.
        learning_rate: at its peak, after the warm-up.
        weight_decay: AdamW's; 0 makes it the paper's Adam.
        warmup: share of the steps.
        reduction: `mean` over users, or the paper's `sum`.
    """

    mean_preference_K: Tensor

    def __init__(
        self,
        model: PreferenceLLM,
        mean_preference_K: Tensor,
        sample: PackedExamples,
        *,
        num_steps: int,
        learning_rate: float,
        weight_decay: float = 0.0,
        warmup: float = 0.05,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["model", "mean_preference_K", "sample"])
        self.model = model
        self.sample = sample
        self.num_steps = num_steps
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.warmup = warmup
        self.reduction = reduction
        self.register_buffer("mean_preference_K", mean_preference_K, persistent=False)
        self.totals = TrainingTotals()
        # Checkpoints hold no frozen weights.
        self.strict_loading = False

    def on_train_start(self) -> None:
        """Only here is the model where it computes; a training that goes on is calibrated already."""
        if self.global_step == 0:
            self.model.calibrate(self.sample.to(self.device))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps only what is trained, or calibrated: the frozen language model is known by its source."""
        checkpoint["state_dict"] = kept_weights(self)
        checkpoint["calibration"] = (self.model.centre_H, self.model.spread_H)
        checkpoint["totals"] = sum_over_processes(self.totals.sums, self.device)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.model.centre_H, self.model.spread_H = (each.to(self.device) for each in checkpoint["calibration"])
        if self.global_rank == 0:
            self.totals.sums = checkpoint["totals"]

    def training_step(self, batch: PreferenceBatch, batch_idx: int) -> Tensor:
        """One optimizer step over this process's share of its users."""
        logits_BK = self.model(batch.examples).logits_BK
        errors_B = squared_error(logits_BK, batch.targets_BK)
        total = errors_B.sum() * batch.counted
        step = self.global_step
        # Processes' gradients are averaged by the strategy, which this undoes, shares of a step being unequal.
        scale = self.trainer.world_size / (batch.num_users if self.reduction == "mean" else 1)
        with torch.no_grad():
            constant_B = (batch.targets_BK - self.mean_preference_K.float()).square().sum(dim=1)
            right_B = top_category_is_right(logits_BK, batch.targets_BK)
        final = step >= self.num_steps * (1 - FINAL_SHARE)
        if batch.counted:
            self.totals.add(errors_B.detach(), constant_B, right_B, tokens=batch.examples.num_tokens, final=final)
        loss = float(errors_B.detach().mean())
        self.log("loss", loss, prog_bar=True, logger=False, batch_size=len(errors_B))
        # At once, since Lightning would log a step only after the checkpoint that follows it.
        for logger in self.loggers:
            logger.log_metrics({"loss": loss, "constant_loss": float(constant_B.mean())}, step)
        return total * scale

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW over what is trainable; the learning rate rises linearly, then falls along a cosine to zero."""
        optimizer = torch.optim.AdamW(
            self.model.trainable_parameters(), lr=self.learning_rate, weight_decay=self.weight_decay
        )
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_at(step, self.num_steps, self.warmup))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


class TrainingTotals:
    """Sums over the users that were trained on, all of them and those of the last part."""

    def __init__(self) -> None:
        self.sums = torch.zeros(7, dtype=torch.float64)

    def add(self, errors_B: Tensor, constant_B: Tensor, right_B: Tensor, *, tokens: int, final: bool) -> None:
        """Counts the users of one step."""
        users = len(errors_B)
        whole = [float(errors_B.double().sum()), users, tokens]
        last = [float(each.double().sum()) for each in (errors_B, constant_B, right_B)]
        self.sums += torch.tensor([*whole, *([*last, users] if final else [0.0] * 4)], dtype=torch.float64)

    def metrics(self, sums: Tensor) -> dict[str, float]:
        """Means per user, from sums (over all processes)."""
        error, users, tokens, final_error, final_constant, right, final_users = sums.tolist()
        return {
            "loss_mean": error / users,
            "loss_final": final_error / final_users,
            "constant_loss": final_constant / final_users,
            "explained_share": 1 - final_error / final_constant if final_constant else 0.0,
            "top_category_right": right / final_users,
            "tokens": tokens,
        }


def squared_error(logits_BK: Tensor, targets_BK: Tensor) -> Tensor:
    """Of each user, summed over categories (Eq. 2 and 3), float32 `[B]`."""
    return (logits_BK.float().softmax(dim=1) - targets_BK).square().sum(dim=1)


def top_category_is_right(logits_BK: Tensor, targets_BK: Tensor) -> Tensor:
    """Whether the likeliest category is one of the user's most frequent ones, bool `[B]`."""
    chosen_B = targets_BK.gather(1, logits_BK.argmax(dim=1, keepdim=True))[:, 0]
    return chosen_B == targets_BK.amax(dim=1)


def rate_at(step: int, steps: int, warmup: float) -> float:
    """The learning rate's share of its peak: linear warm-up, then a cosine."""
    rising = max(1, round(warmup * steps))
    if step < rising:
        return (step + 1) / rising
    return 0.5 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))


def run(context: StageContext) -> dict[str, Any]:
    """Writes `adapter/` (PEFT's own format) and `heads.safetensors`.

    Returns:
        Training losses per user (over all of the training, and its last third), the loss of the constant predictor on
        the users of that third and the share of it that is explained, how often the top category is right there,
        trainable parameters, tokens and seconds of the training.
    """
    config, sft = context.config, context.config.sft
    item_embeddings_ID = read_item_embeddings(context.inputs["backbone"])
    preferences = load_arrays(context.inputs["preferences"] / "preferences.safetensors")
    targets_UK = preferences["preferences"]
    if sft.target == "window":
        histories = training_histories(context.interactions, config.training.max_len)
        targets_UK = window_preferences(histories, preferences["clusters"], targets_UK.shape[1])
    source = resolve(config.llm, Path(config.cache))
    model = new_model(config.llm, source, item_embeddings_ID, targets_UK.shape[1])
    data = PreferenceDataModule(
        context.interactions,
        targets_UK,
        model.packer,
        max_len=config.training.max_len,
        batch_size=sft.batch_size,
        seed=context.seed,
    )
    module = PreferenceSFTModule(
        model,
        torch.from_numpy(targets_UK.mean(axis=0)),
        data.sample(CALIBRATION_USERS),
        num_steps=len(data.batches) * sft.max_epochs,
        learning_rate=sft.learning_rate,
        weight_decay=sft.weight_decay,
        warmup=sft.warmup,
        reduction=sft.reduction,
    )
    trainable = sum(parameter.numel() for parameter in model.trainable_parameters())
    total = sum(parameter.numel() for parameter in model.parameters())
    trainer = context.make_trainer(max_epochs=sft.max_epochs, llm=True, gradient_clip=sft.gradient_clip)
    model.train()
    started = time.perf_counter()
    fit(trainer, module, data)
    seconds = time.perf_counter() - started
    sums = sum_over_processes(module.totals.sums, trainer.strategy.root_device)
    with whole(model.trainable_parameters()):
        if trainer.is_global_zero:
            save_trained(model, context.folder, source)
    return {
        **module.totals.metrics(sums),
        "trainable_parameters": trainable,
        "trainable_share": trainable / total,
        "training_seconds": seconds,
    }
