"""The training loop and the evaluation that the backbone and the fusion stages share.

A step is either differentiated by autograd (`StepLoss`), or one of a group that the module itself runs
(`StaticTraining`).

Shapes: B rows, E size of a user vector, I items (row 0 of a table is padding), D hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, overload

import lightning
import torch
from torch import Tensor

from tslrec.data.sequence_batch import SequenceBatch, TrainingBatch
from tslrec.data.step_groups import StepGroup
from tslrec.evaluation.hooks import EvaluatedUsers, RankingHooks, ScoredUsers
from tslrec.models.backbones.base import Backbone
from tslrec.settings.metrics import DEFAULT_METRICS
from tslrec.system.errors import UserError
from tslrec.system.processes import rank_and_world_size, sum_over_processes
from tslrec.training.full_precision import computing_in_full_precision, in_full_precision
from tslrec.training.nonfinite_guard import NonFiniteGuard
from tslrec.training.sampled_softmax import NegativeSampler
from tslrec.training.soft_targets import SoftTargets
from tslrec.training.static_training import StaticTraining
from tslrec.training.step_loss import StepLoss
from tslrec.training.target_mix import target_mix


class NextItemModule(RankingHooks):
    """Next-item prediction with cross-entropy over items, and full ranking.

    Items are scored by the item embedding's table, or by an output table of the backbone.

    Args:
        backbone: any sequential recommender with any item embedding.
        learning_rate: Adam's, constant.
        weight_decay: Adam's L2 penalty.
        sampler: draws the negatives of a sampled softmax; None: softmax over all items.
        metrics: see `RankingHooks.prepare_ranking`.
        training_counts_I: see `RankingHooks.prepare_ranking`.
        steps_per_batch: as the data module's; with more than 1, the module itself runs the optimizer, by a
            `StaticTraining`, which computes the softmax over all items.
        label_smoothing: what the uniform distribution over all items counts for beside each target.
        soft_targets: what a teacher gives each target; the batches must have places (`SequenceBatch.places`). None:
            there is no teacher. Neither goes with a sampler, with a backbone that is `pairwise`, or, for the teacher,
            with several steps per batch.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        learning_rate: float,
        weight_decay: float,
        sampler: NegativeSampler | None = None,
        metrics: Sequence[str] = DEFAULT_METRICS,
        training_counts_I: Tensor | None = None,
        steps_per_batch: int = 1,
        label_smoothing: float = 0.0,
        soft_targets: SoftTargets | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["backbone", "sampler", "metrics", "training_counts_I", "soft_targets"])
        self.backbone = backbone
        # Here, so that they go to the device with the module.
        self.soft_targets = soft_targets
        self.step_loss = StepLoss(backbone, sampler=sampler, label_smoothing=label_smoothing, soft_targets=soft_targets)
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.loss_sums = torch.zeros(2, dtype=torch.float64)
        """Of this epoch on this rank: the loss summed over targets, and the number of targets."""
        self.ranking: list[Backbone] = []
        """The backbone of the evaluation that runs, in fp32. In a list, since it is no part of the module's state."""
        self.steps_per_batch = steps_per_batch
        self.automatic_optimization = steps_per_batch == 1
        self.static: StaticTraining | None = None
        self.prepare_ranking(metrics, training_counts_I)

    @property
    def nonfinite_flag(self) -> Tensor | None:
        """Whether a loss or a gradient was not finite, a bool scalar on the device; None where the trainer steps."""
        return None if self.static is None else self.static.nonfinite > 0

    def on_train_start(self) -> None:
        """A training has an optimizer of its own, and so graphs of its own."""
        if not self.automatic_optimization:
            self.loss_sums = self.loss_sums.to(self.device)
            optimizer = self.optimizers(use_pl_optimizer=False)
            assert isinstance(optimizer, torch.optim.Optimizer)
            mix = target_mix(self.step_loss.label_smoothing)
            self.static = StaticTraining(self.backbone, optimizer, self.loss_sums, mix)

    def on_train_end(self) -> None:
        self.static = None

    @overload
    def training_step(self, batch: TrainingBatch, batch_idx: int) -> Tensor: ...

    @overload
    def training_step(self, batch: StepGroup, batch_idx: int) -> None: ...

    def training_step(self, batch: TrainingBatch | StepGroup, batch_idx: int) -> Tensor | None:
        """Mean cross-entropy over the targets of one optimizer step, plus the backbone's regularization.

        None after a group of steps, which has changed the weights already.
        """
        if isinstance(batch, StepGroup):
            self.train_group(batch)
            return None
        return self.mean_loss(batch)

    def train_group(self, group: StepGroup) -> None:
        """Runs a group of optimizer steps, and counts them as Lightning counts its own.

        Raises:
            UserError: if a loss or a gradient was not finite, as of the end of the group before.
        """
        assert self.static is not None
        self.static.run(group)
        count_steps(self.trainer, len(group))
        if self.static.seen_nonfinite:
            self.refuse_nonfinite()
        if self.static.mean_loss is not None:
            self.log("loss", self.static.mean_loss, logger=False, batch_size=group.num_targets)

    def refuse_nonfinite(self) -> None:
        """Ends the training in the guard's words.

        Raises:
            UserError: always.
        """
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, NonFiniteGuard):
                callback.refuse("loss or a gradient", self.trainer)
        raise UserError("the loss or a gradient is not finite; lower the learning rate")

    def mean_loss(self, batch: TrainingBatch) -> Tensor:
        """Mean cross-entropy over the targets of one optimizer step, plus the backbone's regularization."""
        summed, table_ID = self.step_loss(batch)
        # DDP averages gradients over ranks; so this becomes the mean over the targets of all ranks.
        _, world_size = rank_and_world_size()
        share = batch.num_targets / world_size
        loss = summed / share
        # On the device: reading the loss would wait for it.
        self.loss_sums = self.loss_sums.to(loss.device)
        self.loss_sums[0] += loss.detach().double() * share
        self.loss_sums[1] += share
        self.log("loss", loss.detach(), logger=False, batch_size=batch.num_targets)
        return loss + self.backbone.regularization(table_ID)

    def on_train_epoch_end(self) -> None:
        """Logs the epoch's mean loss; Lightning's own mean would start from zero where training resumes in an epoch."""
        if self.nonfinite_flag is not None and bool(self.nonfinite_flag):
            self.refuse_nonfinite()
        total, targets = sum_over_processes(self.loss_sums, self.device)
        self.loss_sums.zero_()
        self.log("train/loss", total / targets)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses to write a checkpoint after a step that was skipped, since a resumed training would not know of it.

        Raises:
            UserError: if a loss or a gradient was not finite.
        """
        if self.nonfinite_flag is not None and bool(self.nonfinite_flag):
            self.refuse_nonfinite()
        checkpoint["loss_sums"] = sum_over_processes(self.loss_sums, self.device)
        checkpoint["steps_per_batch"] = self.steps_per_batch

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes over the epoch's sums.

        Raises:
            UserError: if the checkpoint counts its batches otherwise.
        """
        written = checkpoint.get("steps_per_batch", 1)
        if written != self.steps_per_batch:
            raise UserError(
                f"the checkpoint counts {written} optimizer steps per batch, this training {self.steps_per_batch}; use "
                f"the trainer and the trainer.step_graphs that it began with, or delete the checkpoints"
            )
        if self.global_rank == 0:
            self.loss_sums = checkpoint["loss_sums"]

    def predict_users(self, batch: SequenceBatch) -> ScoredUsers | None:
        """User vectors and the output table; None for the empty batch of a process without users of its own."""
        if len(batch.targets) == 0:
            return None
        assert batch.seen_rows is not None
        assert batch.seen_items is not None
        users = EvaluatedUsers(batch.users_B, batch.targets, batch.seen_rows, batch.seen_items)
        if not self.ranking:
            self.ranking.append(in_full_precision(self.backbone))
        (backbone,) = self.ranking
        with computing_in_full_precision(self.device):
            table_ID = backbone.item_embedding.table()
            user_BE = backbone(batch.items_BL, batch.lengths_B, batch.users_B, table_ID)
            return ScoredUsers(users, user_BE, backbone.output_table(table_ID))

    def on_validation_epoch_end(self) -> None:
        self.ranking.clear()
        super().on_validation_epoch_end()

    def on_test_epoch_end(self) -> None:
        self.ranking.clear()
        super().on_test_epoch_end()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return torch.optim.Adam(trained, lr=self.learning_rate, weight_decay=self.weight_decay, fused=True)


def count_steps(trainer: lightning.Trainer, steps: int) -> None:
    """Counts the optimizer steps of a batch in Lightning's books: for `global_step`, and for the logs."""
    loop = trainer.fit_loop.epoch_loop
    for _ in range(steps):
        loop.manual_optimization.optim_step_progress.increment_ready()
        loop.manual_optimization.optim_step_progress.increment_completed()
    # Lightning counts one step per batch for the logs, at the batch's end.
    loop._batches_that_stepped += steps - 1
