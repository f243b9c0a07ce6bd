"""Continues a trained recommender on data that grew: its weights are carried over by the raw ids of items and users.

Shapes: I items of today's data set (row 0 of a table is padding), U users of it, C cold items, N
new items, D hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from tslrec.data.interactions import Interactions
from tslrec.models.backbones.base import Backbone
from tslrec.models.fusions.category import CategoryFusion
from tslrec.models.fusions.initial import InitialFusion
from tslrec.models.item_embedding import FixedTable, GrownEmbedding, IdEmbedding
from tslrec.stages.cold_items import damped_rows, mean_row
from tslrec.stages.context import Earlier
from tslrec.stages.outputs import COLD_ROWS, WEIGHTS
from tslrec.system.errors import UserError
from tslrec.system.safetensors_io import load_tensors


def numbers_before(before: Sequence[str], today: Sequence[str]) -> NDArray[np.int64]:
    """For each of today's raw ids its number in the earlier list; -1 where it was not in it."""
    numbers = {raw_id: number for number, raw_id in enumerate(before)}
    return np.fromiter((numbers.get(raw_id, -1) for raw_id in today), dtype=np.int64, count=len(today))


@dataclass(frozen=True)
class Carried:
    """What a training that continues begins with.

    Attributes:
        path: the earlier weights.
        keeps_items: see `Earlier`. Then the encoder stays as it is, too, and only the rows of new items are trained.
        items_I: the number that each item had before, `[I + 1]`; -1 for a new item.
        users_U: the same of the users.
        cold_I: which items have no interaction in the training part, neither today nor before, bool `[I + 1]`.
        facts: `items_before`, `items_kept`, `items_new`, `items_cold`, `users_before`, `users_kept`, `users_new`.
    """

    path: Path
    keeps_items: bool
    items_I: Tensor
    users_U: Tensor
    cold_I: Tensor
    facts: Mapping[str, int]

    @classmethod
    def of(cls, earlier: Earlier, stage: str, interactions: Interactions) -> Carried:
        """Compares today's users and items with those of the earlier run.

        Args:
            earlier: the earlier run.
            stage: the stage that continues.
            interactions: today's data set.
        """
        before, today = earlier.interactions, interactions
        items_I = numbers_before(before.ids.items, today.ids.items)
        users_U = numbers_before(before.ids.users, today.ids.users)
        trained_before_I = np.where(items_I >= 0, before.training_counts[items_I], 0)
        cold_I = (today.training_counts == 0) & (trained_before_I == 0)
        cold_I[0] = False
        facts = {
            "items_before": before.num_items,
            "items_kept": int((items_I > 0).sum()),
            "items_new": int((items_I < 0).sum()),
            "items_cold": int(cold_I.sum()),
            "users_before": before.num_users,
            "users_kept": int((users_U >= 0).sum()),
            "users_new": int((users_U < 0).sum()),
        }
        return cls(
            earlier.folders[stage] / WEIGHTS,
            earlier.keeps_items,
            torch.from_numpy(items_I),
            torch.from_numpy(users_U),
            torch.from_numpy(cold_I),
            facts,
        )

    @property
    def new_N(self) -> Tensor:  # noqa: N802 - a shape suffix is a capital letter
        """Ids of the new items."""
        return (self.items_I < 0).nonzero()[:, 0]

    def begin(self, backbone: Backbone) -> None:
        """Puts the earlier weights into a backbone that was just built; rows of new items and users stay as drawn.

        Raises:
            UserError: if the weights are of another model.
        """
        carry_over(backbone, load_tensors(self.path), self.path, items_I=self.items_I, users_U=self.users_U)
        if not self.keeps_items:
            return
        backbone.requires_grad_(False)
        if len(self.new_N):
            backbone.item_embedding = GrownEmbedding(backbone.item_embedding.table(), self.new_N)
        for of_items in (backbone.own_output_IE, backbone.output_bias_I):
            if of_items is not None:
                # No later stage reads these, and new items need rows in them.
                of_items.requires_grad_(True)

    def complete(self, backbone: Backbone) -> None:
        """Gives cold items their explicit rows among the trained weights (see `cold_items`).

        Rows of earlier items stay as they are where they must (`keeps_items`). A cold item of a fusion gets an id
        embedding of zero, unless that is where its knowledge is; its fused row follows in `fix_cold_rows`.
        """
        with torch.no_grad():
            if isinstance(backbone.item_embedding, GrownEmbedding):
                whole = IdEmbedding(backbone.item_embedding.num_items, backbone.hidden_size)
                whole.weight.copy_(backbone.item_embedding.table())
                backbone.item_embedding = whole.to(backbone.item_embedding.weight.device)
            cold_I = self.cold_I
            for of_output in (backbone.own_output_IE, backbone.output_bias_I):
                if of_output is not None:
                    of_output[cold_I] = mean_row(of_output, cold_I)
            if isinstance(backbone.item_embedding, IdEmbedding):
                explicit_I = cold_I & (self.items_I < 0) if self.keeps_items else cold_I
                weight_ID = backbone.item_embedding.weight
                weight_ID[explicit_I] = mean_row(weight_ID, cold_I)
                return
            if isinstance(backbone.item_embedding, InitialFusion):
                return
            for module in backbone.item_embedding.modules():
                if isinstance(module, IdEmbedding):
                    module.weight[cold_I] = 0

    def fix_cold_rows(self, backbone: Backbone) -> dict[str, Tensor]:
        """Damps the fused rows of cold items; from here on the backbone has a finished item table.

        Returns:
            The content of `cold_rows.safetensors`; empty if no row of a fusion is cold.
        """
        if isinstance(backbone.item_embedding, IdEmbedding) or not bool(self.cold_I.any()):
            return {}
        with torch.no_grad():
            table_ID = backbone.item_embedding.table().clone()
            cold_I = self.cold_I.to(table_ID.device)
            rows_CD = damped_rows(table_ID, cold_I)
            table_ID[cold_I] = rows_CD
            backbone.item_embedding = FixedTable(table_ID)
        return {"items": cold_I.nonzero()[:, 0].cpu(), "rows": rows_CD.cpu()}


def carry_over(
    backbone: Backbone, weights: Mapping[str, Tensor], path: Path, *, items_I: Tensor, users_U: Tensor
) -> None:
    """Copies weights into a backbone; tables with a row per item or per user row by row.

    Args:
        backbone: built for today's items and users.
        weights: state dict of a backbone with the same settings for other items and users.
        path: their file, for messages.
        items_I: see `Carried`.
        users_U: see `Carried`.

    Raises:
        UserError: if the weights have other names or shapes.
    """
    rows = {"own_output_IE": items_I, "output_bias_I": items_I, "user_embedding": users_U}
    for name, module in backbone.named_modules():
        if isinstance(module, IdEmbedding):
            rows[f"{name}.weight"] = items_I
        if isinstance(module, CategoryFusion):
            # Categories keep their numbers; the last ones may have no item any more, or none yet.
            numbers = torch.arange(len(module.category_weight))
            numbers[len(weights[f"{name}.category_weight"]) :] = -1
            rows[f"{name}.category_weight"] = numbers
    state = backbone.state_dict()
    for name in sorted({*state, *weights}):
        ours, theirs = state.get(name), weights.get(name)
        if ours is not None and theirs is not None and name in rows and ours.shape[1:] == theirs.shape[1:]:
            known = rows[name] >= 0
            ours[known] = theirs[rows[name][known]].to(ours.dtype)
        elif ours is not None and theirs is not None and ours.shape == theirs.shape:
            ours.copy_(theirs)
        else:
            raise UserError(
                f"{path}: {name} has the shape {shape(theirs)}, but the model of this run has {shape(ours)}; continue "
                "a run of the same model, or train anew without continue_from"
            )


def shape(tensor: Tensor | None) -> Any:
    """A tensor's shape for a message."""
    return "none" if tensor is None else tuple(tensor.shape)


def save_cold_rows(rows: dict[str, Tensor], folder: Path) -> None:
    """Writes `cold_rows.safetensors`, unless there are no rows."""
    if rows:
        save_file(rows, folder / COLD_ROWS)
