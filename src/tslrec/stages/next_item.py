"""The training loop and the evaluator that the backbone and the fusion stages share.

Shapes: B rows, L positions, D hidden size, E size of a user vector, I items (row 0 of a table is padding), T targets.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import lightning
import torch
import torch.nn.functional as F
from torch import Tensor

from tslrec.accumulation import summed, summed_by_teams
from tslrec.backbones.base import Backbone, CausalBackbone
from tslrec.interactions import PADDING
from tslrec.losses import softmax_loss
from tslrec.metrics import RankingMetrics, target_ranks
from tslrec.ranks import process_place, sum_over_processes
from tslrec.sampled_softmax import Negatives, NegativeSampler, sampled_softmax_loss
from tslrec.sequences import SequenceBatch, TrainingBatch
from tslrec.teams import number_of_teams
from tslrec.user_ranks import UserRanks


class NextItemModule(lightning.LightningModule):
    """Next-item prediction with a softmax (over the item table, or a table of the backbone's own) and full ranking.

    Args:
        backbone: any sequential recommender, whatever its item embedding is made of.
        learning_rate: Adam's.
        weight_decay: Adam's (L2).
        sampler: draws the negatives of a sampled softmax; None: the softmax over all items.
    """

    def __init__(
        self, backbone: Backbone, *, learning_rate: float, weight_decay: float, sampler: NegativeSampler | None = None
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["backbone", "sampler"])
        self.backbone = backbone
        self.sampler = sampler
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.loss_sums = torch.zeros(2, dtype=torch.float64)
        """Of this epoch and this process: the loss, summed over targets, and their number."""
        self.validation_metrics = RankingMetrics()
        self.test_metrics = RankingMetrics()
        self.test_ranks = UserRanks()

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> Tensor:
        """Cross-entropy per target, over all micro-batches of one optimizer step, plus the backbone's own penalty."""
        item_embedding = self.backbone.item_embedding
        if self.sampler is None:
            negatives, table_ID = None, item_embedding.table()
            output_IE = self.backbone.output_table(table_ID)
        else:
            # From here on ids are places in the part of the table that this step needs.
            rows_R, batch, negatives = placed(batch, self.sampler.draw(self.device))
            table_ID = item_embedding.rows(rows_R)
            output_IE = self.backbone.output_rows(rows_R, table_ID)
        loss = self.summed_loss(batch, table_ID, output_IE, negatives)
        # The mean over the targets of all processes, once their gradients have been averaged.
        _, world_size = process_place()
        loss = loss / (batch.num_targets / world_size)
        share = batch.num_targets / world_size
        self.loss_sums += torch.tensor([float(loss.detach()) * share, share], dtype=torch.float64)
        self.log("loss", loss.detach(), prog_bar=True, logger=False, batch_size=batch.num_targets)
        return loss + self.backbone.regularization(table_ID if negatives is None else None)

    def summed_loss(
        self, batch: TrainingBatch, table_ID: Tensor, output_IE: Tensor, negatives: Negatives | None
    ) -> Tensor:
        """Cross-entropy, summed over the targets of all micro-batches.

        On a CPU prefixes are differentiated a micro-batch at a time: with one target to a whole window, their
        activations outweigh the gradient of the item table, which this way is computed once for each micro-batch.
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
        """`summed_loss` by micro-batches, by several teams of threads at once where the backbone lets them."""
        own_input_table, own_output = (table.detach().requires_grad_() for table in (input_table_ID, output_IE))
        encoders = self.backbone.encoder_parameters()
        leaves, origins = [own_input_table, own_output, *encoders], [input_table_ID, output_IE, *encoders]

        def loss_of_part(rows: SequenceBatch, items_BL: Tensor) -> Tensor:
            return self.loss_of(*self.encoded(rows, items_BL, own_input_table), own_output, negatives)

        # What autocast casts to is known to the thread that entered it alone.
        by_teams = self.backbone.draws_by_dropout and not torch.is_autocast_enabled("cpu")
        if not by_teams or number_of_teams() == 1:
            return summed([partial(loss_of_part, *part) for part in zip(parts, inputs, strict=True)], leaves, origins)
        # As many as are computed at once come out of one micro-batch, so that they take no more memory than it.
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
        """The user vectors `[T, E]` and the targets `[T]` of a micro-batch, whose items are `items_BL`."""
        if rows.targets.ndim == 1:
            hidden = self.backbone(items_BL, rows.lengths_B, rows.users_B, input_table_ID)
        else:
            backbone = cast(CausalBackbone, self.backbone)
            hidden = backbone.all_positions(items_BL, rows.lengths_B, rows.users_B, input_table_ID, rows.packing)
        counted = rows.targets > 0
        return hidden[counted], rows.targets[counted]

    def loss_of(self, user_TE: Tensor, targets_T: Tensor, output_IE: Tensor, negatives: Negatives | None) -> Tensor:
        if negatives is None:
            padding_row = self.backbone.item_embedding.padding_row
            return softmax_loss(user_TE, output_IE, targets_T, padding_row=padding_row)
        return sampled_softmax_loss(user_TE, output_IE, targets_T, negatives)

    def on_train_epoch_end(self) -> None:
        """Summed by hand, since Lightning's own mean over an epoch would begin anew in the middle of one."""
        total, targets = sum_over_processes(self.loss_sums, self.device)
        self.loss_sums.zero_()
        self.log("train/loss", total / targets)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["loss_sums"] = sum_over_processes(self.loss_sums, self.device)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.global_rank == 0:
            self.loss_sums = checkpoint["loss_sums"]

    def validation_step(self, batch: SequenceBatch, batch_idx: int) -> None:
        self.rank(batch, self.validation_metrics)

    def on_validation_epoch_end(self) -> None:
        self.log_ranking("validation", self.validation_metrics)

    def test_step(self, batch: SequenceBatch, batch_idx: int) -> None:
        self.rank(batch, self.test_metrics, self.test_ranks)

    def on_test_epoch_end(self) -> None:
        self.log_ranking("test", self.test_metrics)

    def rank(self, batch: SequenceBatch, metrics: RankingMetrics, kept: UserRanks | None = None) -> None:
        """Ranks each row's target among all items, under both protocols."""
        if len(batch.targets) == 0:
            return
        table_ID = self.backbone.item_embedding.table()
        user_BE = self.backbone(batch.items_BL, batch.lengths_B, batch.users_B, table_ID)
        output_IE = self.backbone.output_table(table_ID)
        assert batch.seen_rows is not None
        assert batch.seen_items is not None
        masked_B, unmasked_B = target_ranks(user_BE, output_IE, batch.targets, batch.seen_rows, batch.seen_items)
        metrics.update(masked_B, unmasked_B)
        if kept is not None:
            kept.add(batch.users_B, masked_B, unmasked_B)

    def log_ranking(self, part: str, metrics: RankingMetrics) -> None:
        values = {f"{part}/{name}": float(value) for name, value in metrics.compute().items()}
        self.log_dict(values)
        metrics.reset()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        trained = [parameter for parameter in self.parameters() if parameter.requires_grad]
        return torch.optim.Adam(trained, lr=self.learning_rate, weight_decay=self.weight_decay, fused=True)


def placed(batch: TrainingBatch, negatives: Negatives) -> tuple[Tensor, TrainingBatch, Negatives]:
    """The items of a step, distinct and rising from padding, and the step with their places for ids.

    So of a table of millions of rows a step computes, and gives a gradient to, the few that it needs.
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
    """The rows of the table that some inputs use, and the inputs in the numbers of those rows.

    Every look-up in a table has a gradient as large as the table. With this there is one for all micro-batches of a
    step; theirs are as small as the step.

    Args:
        table_ID: the item table; row 0 is padding, which stays 0.
        inputs: item ids, each `[B, L]`.
    """
    used, places = compact(inputs)
    return F.embedding(used, table_ID, padding_idx=PADDING), places


def compact(ids: Sequence[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """The distinct ids of some tensors, rising from 0, and the tensors with each id's place among them in its stead."""
    flat = torch.cat([ids[0].new_zeros(1), *(each.flatten() for each in ids)])
    used, places = torch.unique(flat, return_inverse=True)
    parts = places[1:].split([each.numel() for each in ids])
    return used, [part.view_as(each) for part, each in zip(parts, ids, strict=True)]
