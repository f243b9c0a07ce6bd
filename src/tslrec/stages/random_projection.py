"""An ablation of stages 2 to 4: a random linear map of the item embeddings, as wide as the language model.

Shapes: I items (row 0 is padding), D hidden size of the backbone, H hidden size of the language model.
"""

from __future__ import annotations

from typing import Any

import torch

from tslrec.knowledge.table_file import write_knowledge
from tslrec.llm.adapter_files import read_item_embeddings
from tslrec.llm.shape import shape_of
from tslrec.stages.context import StageContext

VERSION = 1
TOGETHER = False


def run(context: StageContext) -> dict[str, Any]:
    """Writes item embeddings times a matrix of independent normal numbers, which keeps distances about as they are."""
    items_ID = read_item_embeddings(context.inputs["backbone"])
    size = shape_of(context.config.llm).hidden_size
    generator = torch.Generator().manual_seed(context.seed)
    map_DH = torch.randn(items_ID.shape[1], size, generator=generator) / size**0.5
    write_knowledge(context.folder, items_ID @ map_DH, context.interactions)
    return {}
