"""The loss of an optimizer step that autograd differentiates: cross-entropy over items, summed over the targets.

Shapes: B rows, L positions, D hidden size, E size of a user vector, I items (row 0 of a table is padding), T targets,
R distinct items of a step.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

import torch
from torch import Tensor

from tslrec.data.sequence_batch import SequenceBatch, TrainingBatch
from tslrec.models.backbones.base import Backbone, PositionBackbone
from tslrec.training.accumulation import summed, summed_by_teams
from tslrec.training.losses import softmax_loss
from tslrec.training.pairwise_loss import other_items, pairwise_loss
from tslrec.training.sampled_softmax import Negatives, NegativeSampler, sampled_softmax_loss
from tslrec.training.soft_targets import SoftTargets
from tslrec.training.target_mix import TargetMix, target_mix
from tslrec.training.thread_teams import number_of_teams
from tslrec.training.used_rows import narrowed, placed


class StepLoss:
    """Gives the loss of a step. It holds no weights of its own; the module that trains has all of them.

    Args:
        backbone: gives the user vectors, around any item embedding.
        sampler: see `NextItemModule`.
        label_smoothing: see `NextItemModule`.
        soft_targets: see `NextItemModule`.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        sampler: NegativeSampler | None = None,
        label_smoothing: float = 0.0,
        soft_targets: SoftTargets | None = None,
    ) -> None:
        self.backbone = backbone
        self.sampler = sampler
        self.label_smoothing = label_smoothing
        self.soft_targets = soft_targets

    def __call__(self, batch: TrainingBatch) -> tuple[Tensor, Tensor | None]:
        """The loss, summed over the targets of all micro-batches, and the item table `[I + 1, D]`.

        The table is None where negatives are sampled, because only the rows that the step uses are computed.
        """
        item_embedding = self.backbone.item_embedding
        if self.sampler is None:
            table_ID = item_embedding.table()
            return self.of_tables(batch, table_ID, self.backbone.output_table(table_ID)), table_ID
        # From here on item ids are row numbers of the part of the table that this step uses.
        rows_R, batch, negatives = placed(batch, self.sampler.draw(batch.parts[0].items_BL.device))
        used_RD = item_embedding.rows(rows_R)
        return self.of_tables(batch, used_RD, self.backbone.output_rows(rows_R, used_RD), negatives), None

    def of_tables(
        self, batch: TrainingBatch, table_ID: Tensor, output_IE: Tensor, negatives: Negatives | None = None
    ) -> Tensor:
        """Cross-entropy, summed over the targets of all micro-batches.

        On a CPU, prefixes are differentiated one micro-batch at a time. With a single target per window their
        activations need more memory than the gradient of the item table, which is then computed once per micro-batch.
        """
        device = table_ID.device.type
        if negatives is None and device == "cuda" and not self.scores_few:
            return self.without_waiting(batch, table_ID, output_IE)
        input_table_ID, inputs = narrowed(table_ID, [rows.items_BL for rows in batch.parts])
        if len(batch.parts) > 1 and batch.parts[0].targets.ndim == 1 and device == "cpu":
            return self.differentiated(batch.parts, inputs, input_table_ID, output_IE, negatives)
        encoded = [self.encoded(*part, input_table_ID) for part in zip(batch.parts, inputs, strict=True)]
        users, targets = zip(*encoded, strict=True)
        mix = self.mix_of([rows.places[rows.targets > 0] for rows in batch.parts if rows.places is not None])
        return self.of_users(torch.cat(users), torch.cat(targets), output_IE, negatives, mix)

    @property
    def scores_few(self) -> bool:
        """Whether scoring every position, or every item, costs more than to wait until it is known which ones count."""
        return self.backbone.masking is not None or self.backbone.pairwise

    def without_waiting(self, batch: TrainingBatch, table_ID: Tensor, output_IE: Tensor) -> Tensor:
        """`of_tables` over all items, where no tensor's shape depends on the values of another.

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

    def differentiated(
        self,
        parts: Sequence[SequenceBatch],
        inputs: Sequence[Tensor],
        input_table_ID: Tensor,
        output_IE: Tensor,
        negatives: Negatives | None,
    ) -> Tensor:
        """`of_tables` by micro-batch, in several teams of threads if the backbone draws by `Dropout` alone."""
        own_input_table, own_output = (table.detach().requires_grad_() for table in (input_table_ID, output_IE))
        encoders = self.backbone.encoder_parameters()
        leaves, origins = [own_input_table, own_output, *encoders], [input_table_ID, output_IE, *encoders]

        def loss_of_part(rows: SequenceBatch, items_BL: Tensor) -> Tensor:
            mix = self.mix_of([] if rows.places is None else [rows.places[rows.targets > 0]])
            return self.of_users(*self.encoded(rows, items_BL, own_input_table), own_output, negatives, mix)

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

    def of_users(
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
