"""The training loop and the evaluation that the backbone and the fusion stages share.

Shapes: B rows, L positions, D hidden size, E size of a user vector, I items (row 0 of a table is padding), T targets,
R distinct items of a step, S negatives of a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from tslrec.config import DEFAULT_METRICS
from tslrec.data.datamodule import SequenceBatch, TrainingBatch
from tslrec.data.interactions import PADDING
from tslrec.evaluation.hooks import EvaluatedUsers, RankingHooks, ScoredUsers
from tslrec.models.backbones.base import Backbone, CausalBackbone
from tslrec.system.processes import rank_and_world_size, sum_over_processes
from tslrec.training.accumulation import summed, summed_by_teams
from tslrec.training.losses import softmax_loss
from tslrec.training.sampled_softmax import Negatives, NegativeSampler, sampled_softmax_loss
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
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["backbone", "sampler", "metrics", "training_counts_I"])
        self.backbone = backbone
        self.sampler = sampler
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.loss_sums = torch.zeros(2, dtype=torch.float64)
        """Of this epoch on this rank: the loss summed over targets, and the number of targets."""
        self.prepare_ranking(metrics, training_counts_I)

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> Tensor:
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
        self.loss_sums += torch.tensor([float(loss.detach()) * share, share], dtype=torch.float64)
        self.log("loss", loss.detach(), prog_bar=True, logger=False, batch_size=batch.num_targets)
        return loss + self.backbone.regularization(table_ID if negatives is None else None)

    def summed_loss(
        self, batch: TrainingBatch, table_ID: Tensor, output_IE: Tensor, negatives: Negatives | None
    ) -> Tensor:
        """Cross-entropy, summed over the targets of all micro-batches.

        On a CPU, prefixes are differentiated one micro-batch at a time. With a single target per window their
        activations need more memory than the gradient of the item table, which is then computed once per micro-batch.
        """
        input_table_ID, inputs = narrowed(table_ID, [rows.items_BL for rows in batch.parts])
        if len(batch.parts) > 1 and batch.parts[0].targets.ndim == 1 and self.device.type == "cpu":
            return self.differentiated_loss(batch.parts, inputs, input_table_ID, output_IE, negatives)
        encoded = [self.encoded(*part, input_table_ID) for part in zip(batch.parts, inputs, strict=True)]
        users, targets = zip(*encoded, strict=True)
        return self.loss_of(torch.cat(users), torch.cat(targets), output_IE, negatives)

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
            return self.loss_of(*self.encoded(rows, items_BL, own_input_table), own_output, negatives)

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
        if rows.targets.ndim == 1:
            hidden = self.backbone(items_BL, rows.lengths_B, rows.users_B, input_table_ID)
        else:
            backbone = cast(CausalBackbone, self.backbone)
            hidden = backbone.all_positions(items_BL, rows.lengths_B, rows.users_B, input_table_ID, rows.packing)
        counted = rows.targets > 0
        return hidden[counted], rows.targets[counted]

    def loss_of(self, user_TE: Tensor, targets_T: Tensor, output_IE: Tensor, negatives: Negatives | None) -> Tensor:
        """Cross-entropy, summed over targets: over all items, or against negatives where they are given."""
        if negatives is None:
            return softmax_loss(user_TE, output_IE, targets_T)
        return sampled_softmax_loss(user_TE, output_IE, targets_T, negatives)

    def on_train_epoch_end(self) -> None:
        """Logs the epoch's mean loss; Lightning's own mean would start from zero where training resumes in an epoch."""
        total, targets = sum_over_processes(self.loss_sums, self.device)
        self.loss_sums.zero_()
        self.log("train/loss", total / targets)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["loss_sums"] = sum_over_processes(self.loss_sums, self.device)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
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
