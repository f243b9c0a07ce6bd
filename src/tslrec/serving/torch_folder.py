"""Loads an exported recommender with PyTorch.

Shapes: I items (row 0 of a table is padding), D hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tslrec.models.item_embedding import FixedTable
from tslrec.serving.folder import ENCODER, FACTS, ITEM_TABLE
from tslrec.serving.torch_engine import TorchEngine
from tslrec.stages.building import build_backbone
from tslrec.stages.restored import load_weights, of_backbone
from tslrec.system.errors import UserError
from tslrec.system.safetensors_io import load_tensors

OWN_BACKBONES = "tslrec.models.backbones."
"""A folder may come from anywhere, and importing a module executes it: only these modules are imported for one."""


def load_torch(folder: Path, facts: Mapping[str, Any]) -> TorchEngine:
    """Builds the backbone that a folder describes, and loads its weights.

    Args:
        folder: of the export, its files checked.
        facts: its `recommender.json`.

    Raises:
        UserError: if the backbone is not one of this package, or a file does not fit.
    """
    section = dict(facts["backbone"])
    if not str(section.get("_target_")).startswith(OWN_BACKBONES):
        raise UserError(
            f"{folder / FACTS}: names the class {section.get('_target_')}; from a folder, only classes of "
            f"{OWN_BACKBONES[:-1]} are imported: load the run itself, or the ONNX export"
        )
    table_ID = load_tensors(folder / ITEM_TABLE)["item_table"]
    if not bool(torch.isfinite(table_ID).all()):
        raise UserError(f"{folder / ITEM_TABLE}: numbers that are not finite (NaN); export from a sound run")
    backbone = build_backbone(section, FixedTable(table_ID), num_users=1, max_len=int(facts["max_len"]))
    load_weights(backbone, folder / ENCODER)
    return TorchEngine(of_backbone(backbone, table_ID))
