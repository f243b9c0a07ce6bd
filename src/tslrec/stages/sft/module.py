"""The training loop of the preference SFT (paper, Section 4.1, Eq. 1-3).

Shapes: B users of a batch, K clusters, H hidden size of the language model.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import lightning
import torch
from torch import Tensor

from tslrec.evaluation.preference_fit import PreferenceFit, squared_error
from tslrec.llm.finetuning import LLMFinetuningModule
from tslrec.llm.packing import PackedExamples
from tslrec.stages.sft.data import PreferenceBatch
from tslrec.stages.sft.model import PreferenceLLM
from tslrec.stages.sft.training_totals import FINAL_SHARE, TrainedStep, TrainingTotals
from tslrec.system.processes import sum_over_processes
from tslrec.training.best_weights import HELD_BACK_ERROR, BestWeights
from tslrec.training.csv_log import log_step


class PreferenceSFTModule(LLMFinetuningModule[PreferenceLLM]):
    """Trains a preference model with the squared error of Eq. 3.

    The loss of a step is the mean over its users of the squared error summed over the categories.

    Args:
        make_model: see `LLMFinetuningModule`.
        mean_preference_K: mean preferences of the users that are trained on. Predicting them for every user is the
            constant predictor, whose error is the one to beat.
        sample: users for `PreferenceLLM.calibrate`, which runs before the first step.
        num_steps: see `LLMFinetuningModule`.
        learning_rate: peak of AdamW's learning rate.
        weight_decay: AdamW's; 0 makes it the paper's Adam.
        warmup: share of the steps during which the learning rate rises.

    Attributes:
        totals: sums over the users that this process has trained on.
        held_back: fit on the held-back users in the current validation; over all processes once it has ended.
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
    ) -> None:
        super().__init__(
            make_model,
            num_steps=num_steps,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            warmup=warmup,
        )
        self.save_hyperparameters(ignore=["make_model", "mean_preference_K", "sample"])
        self.sample = sample
        self.register_buffer("mean_preference_K", mean_preference_K, persistent=False)
        self.totals = TrainingTotals(len(mean_preference_K))
        self.held_back = PreferenceFit(len(mean_preference_K))

    def on_train_start(self) -> None:
        """Calibrates the group head, which needs the model on its device; a resumed training is calibrated already."""
        if self.global_step == 0:
            self.model.calibrate(self.sample.to(self.device))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the calibration, and the totals of all processes."""
        super().on_save_checkpoint(checkpoint)
        checkpoint["calibration"] = (self.model.centre_H, self.model.spread_H)
        checkpoint["totals"] = sum_over_processes(self.totals.sums, self.device)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the calibration on every rank, and the totals of all processes on rank 0."""
        self.model.centre_H, self.model.spread_H = (each.to(self.device) for each in checkpoint["calibration"])
        if self.global_rank == 0:
            self.totals.sums.copy_(checkpoint["totals"])

    def training_step(self, batch: PreferenceBatch, batch_idx: int) -> Tensor:
        """The loss of this process's share of one optimizer step."""
        logits_BK = self.model(batch.examples).logits_BK
        errors_B = squared_error(logits_BK, batch.targets_BK)
        total = errors_B.sum() * batch.counted
        # The strategy averages the gradients of the processes. The shares of a step are unequal, so this factor turns
        # that average into a mean over the users of the step.
        scale = self.trainer.world_size / batch.num_users
        constant_B = self.constant_error(batch)
        step = self.global_step
        if batch.counted:
            self.totals.add(
                TrainedStep(logits_BK.detach(), batch.targets_BK, errors_B.detach(), constant_B, batch.examples),
                final=step >= self.num_steps * (1 - FINAL_SHARE),
            )
        loss = errors_B.detach().mean()
        self.log("loss", loss, logger=False, batch_size=len(errors_B))
        # Logged here, because Lightning would log the step only after the checkpoint that follows it.
        log_step(self.loggers, {"loss": loss, "constant_loss": constant_B.mean()}, step)
        return total * scale

    def constant_error(self, batch: PreferenceBatch) -> Tensor:
        """Squared error of the constant predictor for each user, `[B]`."""
        return (batch.targets_BK - self.mean_preference_K.float()).square().sum(dim=1)

    def on_validation_epoch_start(self) -> None:
        """Begins the fit of this validation."""
        self.held_back = PreferenceFit(self.held_back.num_clusters)

    def validation_step(self, batch: PreferenceBatch, batch_idx: int) -> None:
        """Adds this process's share of a batch of held-back users to the fit."""
        # A rank without users of its own runs a duplicate, because ZeRO-3 gathers the weights collectively.
        logits_BK = self.model(batch.examples).logits_BK
        if batch.counted:
            errors_B = squared_error(logits_BK, batch.targets_BK)
            self.held_back.add(logits_BK, batch.targets_BK, errors_B, self.constant_error(batch))

    def on_validation_epoch_end(self) -> None:
        """Adds up the fit over all processes and logs it as `validation/…`."""
        self.held_back = self.held_back.over_processes(self.device)
        self.log_dict({f"validation/{name}": value for name, value in self.held_back.metrics().items()})


class BestFit(BestWeights):
    """Keeps the weights with the least error on the held-back users, and the fit of these weights.

    Attributes:
        sums: the fit's sums over the held-back users; see `PreferenceFit`.
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
