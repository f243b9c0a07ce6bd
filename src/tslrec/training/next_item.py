"""The training loop and the evaluation that the backbone and the fusion stages share.

Shapes: B rows, L positions, D hidden size, E size of a user vector, I items (row 0 of a table is padding), T targets,
R distinct items of a step, S negatives of a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, cast, overload

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor

from tslrec.config import DEFAULT_METRICS
from tslrec.data.datamodule import SequenceBatch, TrainingBatch
from tslrec.data.interactions import PADDING
from tslrec.data.step_groups import StepGroup
from tslrec.evaluation.hooks import EvaluatedUsers, RankingHooks, ScoredUsers
from tslrec.models.backbones.base import Backbone, PositionBackbone
from tslrec.system.errors import UserError
from tslrec.system.processes import rank_and_world_size, sum_over_processes
from tslrec.training.accumulation import summed, summed_by_teams
from tslrec.training.losses import softmax_loss
from tslrec.training.nonfinite_guard import NonFiniteGuard
from tslrec.training.pairwise_loss import other_items, pairwise_loss
from tslrec.training.sampled_softmax import Negatives, NegativeSampler, sampled_softmax_loss
from tslrec.training.soft_targets import SoftTargets
from tslrec.training.static_training import StaticTraining
from tslrec.training.target_mix import TargetMix, target_mix
from tslrec.training.thread_teams import number_of_teams


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
        self.sampler = sampler
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.label_smoothing = label_smoothing
        self.soft_targets = soft_targets
        self.loss_sums = torch.zeros(2, dtype=torch.float64)
        """Of this epoch on this rank: the loss summed over targets, and the number of targets."""
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
            mix = target_mix(self.label_smoothing)
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
        return self.step_loss(batch)

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

    def step_loss(self, batch: TrainingBatch) -> Tensor:
        """Mean cross-entropy over the targets of one optimizer step, plus the backbone's regularization."""
        item_embedding = self.backbone.item_embedding
        if self.sampler is None:
            negatives, table_ID = None, item_embedding.table()
            output_IE = self.backbone.output_table(table_ID)
        else:
            # From here on item ids are row numbers of the part of the table that this step uses.
            rows_R, batch, negatives = placed(batch, self.sampler.draw(self.device))
            table_ID = item_embedding.rows(rows_R)
            output_IE = self.backbone.output_rows(rows_R, table_ID)
        loss = self.summed_loss(batch, table_ID, output_IE, negatives)
        # DDP averages gradients over ranks; so this becomes the mean over the targets of all ranks.
        _, world_size = rank_and_world_size()
        loss = loss / (batch.num_targets / world_size)
        share = batch.num_targets / world_size
        # On the device: reading the loss would wait for it.
        self.loss_sums = self.loss_sums.to(loss.device)
        self.loss_sums[0] += loss.detach().double() * share
        self.loss_sums[1] += share
        self.log("loss", loss.detach(), logger=False, batch_size=batch.num_targets)
        return loss + self.backbone.regularization(table_ID if negatives is None else None)

    def summed_loss(
        self, batch: TrainingBatch, table_ID: Tensor, output_IE: Tensor, negatives: Negatives | None
    ) -> Tensor:
        """Cross-entropy, summed over the targets of all micro-batches.

        On a CPU, prefixes are differentiated one micro-batch at a time. With a single target per window their
        activations need more memory than the gradient of the item table, which is then computed once per micro-batch.
        """
        if negatives is None and self.device.type == "cuda" and not self.scores_few:
            return self.loss_without_waiting(batch, table_ID, output_IE)
        input_table_ID, inputs = narrowed(table_ID, [rows.items_BL for rows in batch.parts])
        if len(batch.parts) > 1 and batch.parts[0].targets.ndim == 1 and self.device.type == "cpu":
            return self.differentiated_loss(batch.parts, inputs, input_table_ID, output_IE, negatives)
        encoded = [self.encoded(*part, input_table_ID) for part in zip(batch.parts, inputs, strict=True)]
        users, targets = zip(*encoded, strict=True)
        mix = self.mix_of([rows.places[rows.targets > 0] for rows in batch.parts if rows.places is not None])
        return self.loss_of(torch.cat(users), torch.cat(targets), output_IE, negatives, mix)

    @property
    def scores_few(self) -> bool:
        """Whether scoring every position, or every item, costs more than to wait until it is known which ones count."""
        return self.backbone.masking is not None or self.backbone.pairwise

    def loss_without_waiting(self, batch: TrainingBatch, table_ID: Tensor, output_IE: Tensor) -> Tensor:
        """`summed_loss` over all items, where no tensor's shape depends on the values of another.

        A GPU's host would wait for such a shape. So each position is scored, and what does not count has the weight 0;
        and each micro-batch has its own gradient of the table, which is cheap on a GPU.
        """
        hidden = [self.hidden_states(rows, rows.items_BL, table_ID).flatten(0, -2) for rows in batch.parts]
        targets_T = torch.cat([rows.targets.flatten() for rows in batch.parts])
        mix = self.mix_of([rows.places.flatten() for rows in batch.parts if rows.places is not None])
        return softmax_loss(torch.cat(hidden), output_IE, targets_T, (targets_T > 0).to(output_IE.dtype), mix)

    def mix_of(self, places: Sequence[Tensor]) -> TargetMix | None:
        """What the targets of a step are distributed over; None where each is its item alone.

        Args:
            places: of the targets in the flat array, by micro-batch.
        """
        if self.soft_targets is None:
            return target_mix(self.label_smoothing)
        return target_mix(self.label_smoothing, self.soft_targets.weight, *self.soft_targets(torch.cat(list(places))))

    def differentiated_loss(
        self,
        parts: Sequence[SequenceBatch],
        inputs: Sequence[Tensor],
        input_table_ID: Tensor,
        output_IE: Tensor,
        negatives: Negatives | None,
    ) -> Tensor:
        """`summed_loss` by micro-batch, in several teams of threads if the backbone draws by `Dropout` alone."""
        own_input_table, own_output = (table.detach().requires_grad_() for table in (input_table_ID, output_IE))
        encoders = self.backbone.encoder_parameters()
        leaves, origins = [own_input_table, own_output, *encoders], [input_table_ID, output_IE, *encoders]

        def loss_of_part(rows: SequenceBatch, items_BL: Tensor) -> Tensor:
            mix = self.mix_of([] if rows.places is None else [rows.places[rows.targets > 0]])
            return self.loss_of(*self.encoded(rows, items_BL, own_input_table), own_output, negatives, mix)

        # Autocast is a setting of the thread that entered it; the threads of a team would not have it.
        by_teams = self.backbone.draws_by_dropout and not torch.is_autocast_enabled("cpu")
        if not by_teams or number_of_teams() == 1:
            return summed([partial(loss_of_part, *part) for part in zip(parts, inputs, strict=True)], leaves, origins)
        # Each micro-batch is cut into as many pieces as teams, which together need no more memory than it does.
        teams = number_of_teams()
        pieces = [
            piece
            for rows, items_BL in zip(parts, inputs, strict=True)
            for piece in zip(rows.cut(teams), items_BL.tensor_split(teams), strict=True)
            if len(piece[1]) > 0
        ]
        fixed = self.backbone.max_len if self.backbone.fixed_window else None
        costs = [len(items_BL) * (fixed or items_BL.shape[1]) for _, items_BL in pieces]
        return summed_by_teams([partial(loss_of_part, *piece) for piece in pieces], costs, leaves, origins)

    def encoded(self, rows: SequenceBatch, items_BL: Tensor, input_table_ID: Tensor) -> tuple[Tensor, Tensor]:
        """User vectors `[T, E]` and targets `[T]` of a micro-batch.

        Args:
            rows: the micro-batch.
            items_BL: its items, as rows of `input_table_ID`.
            input_table_ID: the item vectors that the step's inputs use.
        """
        hidden = self.hidden_states(rows, items_BL, input_table_ID)
        counted = rows.targets > 0
        return hidden[counted], rows.targets[counted]

    def hidden_states(self, rows: SequenceBatch, items_BL: Tensor, input_table_ID: Tensor) -> Tensor:
        """States of a micro-batch: one per row `[B, E]`, or one per position `[B, L, E]`, as its targets are.

        Args:
            rows: see `encoded`.
            items_BL: see `encoded`.
            input_table_ID: see `encoded`.
        """
        if rows.targets.ndim == 1:
            user_BE: Tensor = self.backbone(items_BL, rows.lengths_B, rows.users_B, input_table_ID)
            return user_BE
        backbone = cast(PositionBackbone, self.backbone)
        return backbone.all_positions(items_BL, rows.lengths_B, rows.users_B, input_table_ID, rows.packing)

    def loss_of(
        self,
        user_TE: Tensor,
        targets_T: Tensor,
        output_IE: Tensor,
        negatives: Negatives | None,
        mix: TargetMix | None = None,
    ) -> Tensor:
        """Cross-entropy, summed over targets: over all items, or against negatives where they are given.

        BPR instead, where the backbone is `pairwise`.
        """
        assert mix is None or (negatives is None and not self.backbone.pairwise), "only over all items"
        if self.backbone.pairwise:
            return pairwise_loss(user_TE, output_IE, targets_T, other_items(targets_T, len(output_IE) - 1))
        if negatives is None:
            return softmax_loss(user_TE, output_IE, targets_T, mix=mix)
        return sampled_softmax_loss(user_TE, output_IE, targets_T, negatives)

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
        table_ID = self.backbone.item_embedding.table()
        user_BE = self.backbone(batch.items_BL, batch.lengths_B, batch.users_B, table_ID)
        assert batch.seen_rows is not None
        assert batch.seen_items is not None
        users = EvaluatedUsers(batch.users_B, batch.targets, batch.seen_rows, batch.seen_items)
        return ScoredUsers(users, user_BE, self.backbone.output_table(table_ID))

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


def placed(batch: TrainingBatch, negatives: Negatives) -> tuple[Tensor, TrainingBatch, Negatives]:
    """Renumbers the items of a step, so that it computes only the rows of the item table that it uses.

    Of a table of millions of rows only these are then computed and get a gradient.

    Returns:
        The distinct item ids of the step, rising from 0 (padding), `[R]`; the step and the negatives with indices into
        them in the place of item ids.
    """
    parts = batch.parts
    ids = [negatives.items_S, *(part.items_BL for part in parts), *(part.targets for part in parts)]
    rows_R, (negatives_S, *places) = compact(ids)
    placed = tuple(
        part._replace(items_BL=items_BL, targets=targets)
        for part, items_BL, targets in zip(parts, places[: len(parts)], places[len(parts) :], strict=True)
    )
    return rows_R, batch._replace(parts=placed), negatives._replace(items_S=negatives_S)


def narrowed(table_ID: Tensor, inputs: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """Looks up the rows of the table that some inputs use, once for all micro-batches of a step.

    Every look-up in a table has a gradient as large as the table. This way there is one such gradient per step; those
    of the micro-batches are only as large as the rows that the step uses.

    Args:
        table_ID: the item table; row 0 is padding, which stays row 0.
        inputs: item ids, each `[B, L]`.

    Returns:
        The distinct rows, `[R, D]`, and the inputs with row numbers of it in the place of item ids.
    """
    used, places = compact(inputs)
    return F.embedding(used, table_ID, padding_idx=PADDING), places


def compact(ids: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """The distinct ids of some tensors, rising from 0, and the tensors with indices into them in the place of ids."""
    flat = torch.cat([ids[0].new_zeros(1), *(each.flatten() for each in ids)])
    used, places = torch.unique(flat, return_inverse=True)
    parts = places[1:].split([each.numel() for each in ids])
    return used, [part.view_as(each) for part, each in zip(parts, ids, strict=True)]
