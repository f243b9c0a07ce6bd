"""Knowledge of items that is from another source than the trained language model: one array in one file.

Shapes: I items (row 0 is padding), H size of the knowledge.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from tslrec.arrays import ID_MAP
from tslrec.errors import UserError
from tslrec.interactions import Interactions
from tslrec.knowledge.store import KNOWLEDGE
from tslrec.streaming import FileTable

FILE = "knowledge.safetensors"


def write_knowledge(folder: Path, knowledge_IH: Tensor, interactions: Interactions) -> None:
    """Writes `knowledge` `[I + 1, H]`, row 0 zeros, into a stage's folder.

    Raises:
        UserError: if a value is not finite.
    """
    if not torch.isfinite(knowledge_IH).all():
        raise UserError(f"{folder.parent.name}: knowledge that is not finite; lower training.learning_rate")
    array_IH = knowledge_IH.float().cpu().clone().contiguous()
    array_IH[0] = 0
    save_file({KNOWLEDGE: array_IH}, folder / FILE, metadata={ID_MAP: interactions.ids.digest})


def read_knowledge(folder: Path) -> FileTable:
    """The knowledge of a stage's artifact, `[I + 1, H]`, which stays on disk."""
    return FileTable(folder / FILE, KNOWLEDGE)
