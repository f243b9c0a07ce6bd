"""Rebuilds the recommender that a stage trained, from the stage's artifact; free of the training code.

Shapes: B sequences, L positions, I items (row 0 of a table is padding), D hidden size, E size of a user vector, K items
that are reranked.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from tslrec.data.interactions import Interactions
from tslrec.evaluation.one_type import in_one_type
from tslrec.models.backbones.base import Backbone
from tslrec.models.item_embedding import FixedTable, IdEmbedding, ItemEmbedding
from tslrec.stages.building import build_backbone
from tslrec.stages.fusion_inputs import Sources, fused_items
from tslrec.stages.fusion_scaling import read_scaling
from tslrec.stages.members import Member
from tslrec.stages.outputs import COLD_ROWS, WEIGHTS
from tslrec.stages.registry import find_stage
from tslrec.system.errors import UserError
from tslrec.system.safetensors_io import load_tensors


@dataclass(frozen=True)
class Reranker:
    """A model that puts the first items of each user's list into an order of its own.

    Attributes:
        scores: from item ids `[B, L]` and lengths `[B]`, as `Restored.encode` takes them, and the first `count` items
            of the lists `[B, K]` (0 is an empty place, K is `count`) to their scores `[B, K]`.
        count: K, how many items it reads.
    """

    scores: Callable[[Tensor, Tensor, Tensor], Tensor]
    count: int


@dataclass(frozen=True)
class Restored:
    """A trained recommender. A user's score of an item is the dot product of user vector and row of the output table.

    Attributes:
        encode: turns item ids `[B, L]` (padded with 0 on the right, `L <= max_len`) and lengths `[B]` into user vectors
            `[B, E]`.
        output_IE: the table that scores items, `[I + 1, E]`.
        max_len: the longest input, in items.
        backbone: the backbone around its finished item table; None where a language model encodes the user or reranks.
        reranker: reranks the first items by these scores; None of most.
        faster_scores: the scores of all items `[B, I]`, padding left out, of user vectors, on the CPU, where they cost
            much less than the product; None of most.
    """

    encode: Callable[[Tensor, Tensor], Tensor]
    output_IE: Tensor
    max_len: int
    backbone: Backbone | None = None
    reranker: Reranker | None = None
    faster_scores: Callable[[Tensor], Tensor] | None = None

    def scores(self, user_BE: Tensor) -> Tensor:
        """The scores of all items, `[B, I]`, padding left out, on the CPU."""
        if self.faster_scores is not None:
            return self.faster_scores(user_BE)
        user_BE, items_IE = in_one_type(user_BE, self.output_IE[1:])
        return user_BE @ items_IE.T


@dataclass(frozen=True)
class ListGenerator:
    """A trained recommender that generates a list for each user, and has no scores of single items.

    Attributes:
        lists: from item ids `[B, L]` and lengths `[B]`, as `Restored.encode` takes them; the items that must not be
            listed, as rows of this batch, not falling, and item ids, `[S]` each; and the users' rows in the data set
            `[B]`, or None for users that it was not trained on; to items `[B, K]`, best first, distinct, 0 an empty
            place, and their scores `[B, K]`, minus infinity there.
        length: K.
        num_items: items of the catalogue.
        max_len: the longest input, in items.
    """

    lists: Callable[[Tensor, Tensor, Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]
    length: int
    num_items: int
    max_len: int


def restore(stage: str, sources: Sources, folder: Path) -> Restored | ListGenerator:
    """Rebuilds the recommender that a stage trained.

    Args:
        stage: the stage's name.
        sources: the run's configuration, its data set, and the folders of the results that the stage read.
        folder: the stage's artifact.

    Raises:
        UserError: if the stage's result is no recommender, or a file does not fit.
    """
    found = find_stage(stage)
    if found is None or found.restored_by is None:
        raise UserError(f"{folder}: a result of the stage {stage}, which is no recommender; name a finished run")
    module, _, name = found.restored_by.partition(":")
    restored: Restored | ListGenerator = getattr(importlib.import_module(module), name)(sources, folder)
    return restored


def restore_member(member: Member, interactions: Interactions) -> Restored:
    """Rebuilds the recommender of a member.

    Args:
        member: of `StageContext.members`.
        interactions: the data set, which a run shares with its members.

    Raises:
        UserError: if the member scores no items, because it generates lists or reranks, or a file does not fit.
    """
    sources = Sources(member.config, interactions, member.inputs, member.members)
    restored = restore(member.stage, sources, member.folder)
    if isinstance(restored, ListGenerator) or restored.reranker is not None:
        raise UserError(f"members: '{member.words}' has no scores of all items; name a method that scores every item")
    return restored


def restore_backbone(sources: Sources, folder: Path) -> Restored:
    """The backbone of stage 1, around one free vector per item."""
    return restore_around(
        IdEmbedding(sources.interactions.num_items, sources.config.model["hidden_size"]), sources, folder
    )


def restore_fusion(sources: Sources, folder: Path) -> Restored:
    """The backbone of stage 5; its fused item table is computed once."""
    return restore_around(fused_items(sources, read_scaling(folder)), sources, folder)


def restore_around(item_embedding: ItemEmbedding, sources: Sources, folder: Path) -> Restored:
    """Loads `weights.safetensors` into a backbone around an item embedding, which is then replaced by its table.

    Args:
        item_embedding: built like the one that was trained.
        sources: see `restore`.
        folder: see `restore`.

    Raises:
        UserError: if the weights do not fit the configuration.
    """
    config = sources.config
    backbone = build_backbone(
        config.model, item_embedding, num_users=sources.interactions.num_users, max_len=config.training.max_len
    )
    load_weights(backbone, folder / WEIGHTS)
    with torch.inference_mode():
        table_ID = item_embedding.table().detach().float().clone()
        if (folder / COLD_ROWS).is_file():
            cold = load_tensors(folder / COLD_ROWS)
            table_ID[cold["items"]] = cold["rows"]
    return of_backbone(backbone, table_ID)


def load_weights(module: nn.Module, path: Path) -> None:
    """Loads a state dict that has exactly the module's names and shapes.

    Raises:
        UserError: if it has others.
    """
    try:
        module.load_state_dict(load_tensors(path))
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: weights of another model ({reason}); use the folder as it was written") from error


def of_backbone(backbone: Backbone, table_ID: Tensor) -> Restored:
    """A recommender of a backbone with its weights and a finished item table.

    Args:
        backbone: its item embedding is replaced.
        table_ID: `[I + 1, D]`.
    """
    backbone.item_embedding = FixedTable(table_ID)
    backbone.requires_grad_(False).eval()

    def encode(items_BL: Tensor, lengths_B: Tensor) -> Tensor:
        # Backbones that have a vector per user are refused before (`serving.run_folder`), so the users do not matter.
        user_BE: Tensor = backbone(items_BL, lengths_B, torch.zeros_like(lengths_B), table_ID)
        return user_BE

    return Restored(encode, backbone.output_table(table_ID).detach(), backbone.max_len, backbone)
