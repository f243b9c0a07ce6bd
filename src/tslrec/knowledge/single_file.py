"""Knowledge of items that does not come from the trained language model: one array in one file.

Shapes: I items (row 0 is padding), H size of the knowledge.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from tslrec.data.interactions import Interactions
from tslrec.knowledge.store import KNOWLEDGE, KnowledgeStore, is_store
from tslrec.system.errors import UserError
from tslrec.system.row_tables import FileTable, Table
from tslrec.system.safetensors_io import ID_MAP

FILE = "knowledge.safetensors"
"""File name in a stage's folder."""


def write_knowledge(folder: Path, knowledge_IH: Tensor, interactions: Interactions) -> None:
    """Writes knowledge into a stage's folder, with the hash of the item ids.

    Args:
        folder: the stage's.
        knowledge_IH: `[I + 1, H]`; row 0 is written as zeros.
        interactions: the data set that the items belong to.

    Raises:
        UserError: if a value is not finite.
    """
    if not torch.isfinite(knowledge_IH).all():
        raise UserError(f"{folder.parent.name}: knowledge that is not finite; lower training.learning_rate")
    array_IH = knowledge_IH.float().cpu().clone().contiguous()
    array_IH[0] = 0
    save_file({KNOWLEDGE: array_IH}, folder / FILE, metadata={ID_MAP: interactions.ids.digest})


def read_knowledge(folder: Path) -> FileTable:
    """The knowledge `[I + 1, H]` that `write_knowledge` wrote; it stays on disk."""
    return FileTable(folder / FILE, KNOWLEDGE)


def knowledge_table(folder: Path) -> Table:
    """The knowledge `[I + 1, H]` that any stage wrote, as a store or as a single file; it stays on disk."""
    return KnowledgeStore.open(folder).table() if is_store(folder) else read_knowledge(folder)
