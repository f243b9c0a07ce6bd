"""Stage 3 of the pipeline: the language model learns to reconstruct users' preferences (paper, Section 4.1, Eq. 1-3).

Shapes: B users of a batch, U users, K clusters, D hidden size of the backbone.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor

from tslrec.arrays import load_arrays
from tslrec.files import write_json
from tslrec.llm.adapter_files import new_model, preference_packer, read_item_embeddings, save_trained
from tslrec.llm.data import PreferenceBatch, PreferenceDataModule, training_histories, window_preferences
from tslrec.llm.packing import PackedExamples
from tslrec.llm.preference_model import PreferenceLLM
from tslrec.llm.source import resolve
from tslrec.preference_fit import PreferenceFit, squared_error
from tslrec.preferences import soft_preferences
from tslrec.ranks import sum_over_processes
from tslrec.resuming import fit
from tslrec.stages.adapted import AdaptedLLMModule
from tslrec.stages.context import StageContext
from tslrec.stages.selection import HELD_BACK_ERROR, BestWeights, stopping
from tslrec.zero import whole, whole_size

VERSION = 5
TOGETHER = True

FINAL_SHARE = 1 / 3
"""The last part of the training over which the final loss is averaged."""

CALIBRATION_USERS = 256
"""How many users tell where the group head's inputs lie before training."""

CALIBRATION = "calibration.json"


class PreferenceSFTModule(AdaptedLLMModule[PreferenceLLM]):
    """Trains a preference model by the squared error of Eq. 3.

    Args:
        make_model: see `AdaptedLLMModule`.
        mean_preference_K: the mean target over the users that are trained on; predicting it for everybody is the error
            to beat.
        sample: users by whom the group head's inputs are standardised before the first step.
        num_steps: see `AdaptedLLMModule`, as the next three.
        learning_rate: at its peak.
        weight_decay: AdamW's; 0 makes it the paper's Adam.
        warmup: share of the steps.
        reduction: `mean` over users, or the paper's `sum`.
        tell: see `AdaptedLLMModule`.
    """

    mean_preference_K: Tensor

    def __init__(
        self,
        make_model: Callable[[], PreferenceLLM],
        mean_preference_K: Tensor,
        sample: PackedExamples,
        *,
        num_steps: int,
        learning_rate: float,
        weight_decay: float = 0.0,
        warmup: float = 0.05,
        reduction: str = "mean",
        tell: Callable[[str], None] = print,
    ) -> None:
        super().__init__(
            make_model,
            num_steps=num_steps,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            warmup=warmup,
            tell=tell,
        )
        self.save_hyperparameters(ignore=["make_model", "tell", "mean_preference_K", "sample"])
        self.sample = sample
        self.reduction = reduction
        self.register_buffer("mean_preference_K", mean_preference_K, persistent=False)
        self.totals = TrainingTotals(len(mean_preference_K))
        self.held_back = PreferenceFit(len(mean_preference_K))
        """Of the validation that runs; over all processes once it has ended."""

    def on_train_start(self) -> None:
        """Only here is the model where it computes; a training that goes on is calibrated already."""
        if self.global_step == 0:
            self.model.calibrate(self.sample.to(self.device))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what was calibrated, and what was counted by all processes."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["calibration"] = (self.model.centre_H, self.model.spread_H)
        checkpoint["totals"] = sum_over_processes(self.totals.sums, self.device)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self.model.centre_H, self.model.spread_H = (each.to(self.device) for each in checkpoint["calibration"])
        if self.global_rank == 0:
            self.totals.sums.copy_(checkpoint["totals"])

    def training_step(self, batch: PreferenceBatch, batch_idx: int) -> Tensor:
        """One optimizer step over this process's share of its users."""
        logits_BK = self.model(batch.examples).logits_BK
        errors_B = squared_error(logits_BK, batch.targets_BK)
        total = errors_B.sum() * batch.counted
        # Processes' gradients are averaged by the strategy, which this undoes, shares of a step being unequal.
        scale = self.trainer.world_size / (batch.num_users if self.reduction == "mean" else 1)
        constant_B = self.constant_error(batch)
        step = self.global_step
        if batch.counted:
            final = step >= self.num_steps * (1 - FINAL_SHARE)
            for totals in (self.totals.all, self.totals.final)[: 1 + final]:
                totals.add(logits_BK, batch.targets_BK, errors_B, constant_B)
            self.totals.tokens += batch.examples.num_tokens
        loss = float(errors_B.detach().mean())
        self.log("loss", loss, prog_bar=True, logger=False, batch_size=len(errors_B))
        # At once, since Lightning would log a step only after the checkpoint that follows it.
        for logger in self.loggers:
            logger.log_metrics({"loss": loss, "constant_loss": float(constant_B.mean())}, step)
        return total * scale

    def constant_error(self, batch: PreferenceBatch) -> Tensor:
        """What predicting the mean preference for everybody errs by, `[B]`."""
        return (batch.targets_BK - self.mean_preference_K.float()).square().sum(dim=1)

    def on_validation_epoch_start(self) -> None:
        self.held_back = PreferenceFit(self.held_back.num_clusters)

    def validation_step(self, batch: PreferenceBatch, batch_idx: int) -> None:
        """Counts this process's share of some held-back users."""
        # By all processes, also where none of the users is left for one: ZeRO-3 gathers the weights together.
        logits_BK = self.model(batch.examples).logits_BK
        if batch.counted:
            errors_B = squared_error(logits_BK, batch.targets_BK)
            self.held_back.add(logits_BK, batch.targets_BK, errors_B, self.constant_error(batch))

    def on_validation_epoch_end(self) -> None:
        self.held_back = self.held_back.over_processes(self.device)
        self.log_dict({f"validation/{name}": value for name, value in self.held_back.metrics().items()})


class TrainingTotals:
    """What is known of the users that were trained on, each as it was in its own step.

    Attributes:
        sums: everything that is counted, by this process.
        all: the part of it that is of all steps.
        final: of those of the last part.
        tokens: that were read, one number.
    """

    def __init__(self, num_clusters: int) -> None:
        size = PreferenceFit.size(num_clusters)
        self.sums = torch.zeros(2 * size + 1, dtype=torch.float64)
        self.all, self.final = (PreferenceFit(num_clusters, part) for part in self.sums[:-1].split(size))
        self.tokens = self.sums[-1:]

    def over_processes(self, device: torch.device) -> TrainingTotals:
        """The same over all processes."""
        together = TrainingTotals(self.all.num_clusters)
        together.sums.copy_(sum_over_processes(self.sums, device))
        return together

    @property
    def last(self) -> PreferenceFit:
        """Of the last part; of all, where the training ended before it."""
        return self.final if self.final.users else self.all

    def metrics(self) -> dict[str, float]:
        """Means per user."""
        last = self.last.metrics()
        return {
            "loss_mean": self.all.metrics()["loss"],
            "loss_final": last.pop("loss"),
            **last,
            "tokens": float(self.tokens),
        }


class BestFit(BestWeights):
    """The weights of the least error on held-back users, and how they fit them.

    Attributes:
        sums: see `PreferenceFit`.
    """

    def __init__(self) -> None:
        super().__init__(HELD_BACK_ERROR, mode="min")
        self.sums = torch.zeros(0)

    def keep(self, module: lightning.LightningModule) -> None:
        super().keep(module)
        assert isinstance(module, PreferenceSFTModule)
        self.sums = module.held_back.sums

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "sums": self.sums}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.sums = state_dict["sums"]


def run(context: StageContext) -> dict[str, Any]:
    """Writes `adapter/` (PEFT's own format), `heads.safetensors` and `calibration.json`.

    Returns:
        Training losses per user (over all of the training, and its last third), the loss of the constant predictor on
        the users of that third and the share of it that is explained, how often the top category is right there, and
        the calibration error; `validation/…`, the same of the held-back users, where there are some, the best epoch and
        how many were run; trainable parameters, tokens and seconds of the training.
    """
    config, sft = context.config, context.config.sft
    item_embeddings_ID = read_item_embeddings(context.inputs["backbone"])
    preferences = load_arrays(context.inputs["preferences"] / "preferences.safetensors")
    targets_UK = preferences["preferences"]
    num_clusters = targets_UK.shape[1]
    if sft.target == "window" and "memberships" in preferences:
        targets_UK = soft_preferences(context.interactions, preferences["memberships"], config.training.max_len)
    elif sft.target == "window":
        histories = training_histories(context.interactions, config.training.max_len)
        targets_UK = window_preferences(histories, preferences["clusters"], num_clusters)
    source = resolve(config.llm, Path(config.cache))
    data = PreferenceDataModule(
        context.interactions,
        targets_UK,
        preference_packer(config.llm, source, num_clusters),
        max_len=config.training.max_len,
        batch_size=sft.batch_size,
        seed=context.seed,
        held_back=sft.held_back,
        eval_batch_size=sft.eval_batch_size,
        steps_per_epoch=sft.steps_per_epoch,
    )
    module = PreferenceSFTModule(
        lambda: new_model(config.llm, source, item_embeddings_ID, num_clusters),
        torch.from_numpy(targets_UK[data.trained].mean(axis=0)),
        data.sample(CALIBRATION_USERS),
        num_steps=len(data.batches) * sft.max_epochs,
        learning_rate=sft.learning_rate,
        weight_decay=sft.weight_decay,
        warmup=sft.warmup,
        reduction=sft.reduction,
        tell=lambda line: context.tell(f"sft: {line}"),
    )
    best = BestFit()
    trainer = context.make_trainer(
        max_epochs=sft.max_epochs,
        callbacks=[best, stopping(best, sft.patience)] if len(data.held_back) else [],
        llm=True,
        gradient_clip=sft.gradient_clip,
    )
    started = time.perf_counter()
    fit(trainer, module, data)
    seconds = time.perf_counter() - started
    totals = module.totals.over_processes(trainer.strategy.root_device)
    metrics, calibration = totals.metrics(), totals.last.report("users of the last steps of the training")
    if len(data.held_back):
        best.restore(module)
        calibration = PreferenceFit(num_clusters, best.sums).report("held-back users")
        metrics |= {**best.metrics, "validation/users": len(data.held_back)}
        metrics |= {"best_epoch": best.epoch, "epochs": trainer.current_epoch}
    model = module.model
    trainable = whole_size(model.trainable_parameters())
    with whole(model.trainable_parameters()):
        if trainer.is_global_zero:
            save_trained(model, context.folder, source)
            write_json(context.folder / CALIBRATION, calibration)
    return {
        **metrics,
        "trainable_parameters": trainable,
        "trainable_share": trainable / whole_size(model.parameters()),
        "training_seconds": seconds,
    }
