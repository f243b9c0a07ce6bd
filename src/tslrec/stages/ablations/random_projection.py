"""Ablation of stages 2 to 4: a random linear map of the item embeddings, as wide as the language model.

Shapes: I items (row 0 is padding), D hidden size of the backbone, H hidden size of the language model.
"""

from __future__ import annotations

from typing import Any

import torch

from tslrec.knowledge.single_file import write_knowledge
from tslrec.llm.shape import shape_of
from tslrec.stages.context import StageContext
from tslrec.stages.outputs import read_item_embeddings


def run(context: StageContext) -> dict[str, Any]:
    """Writes the item embeddings times a matrix of independent N(0, 1/H) numbers as knowledge; has no metrics.

    Such a map approximately preserves distances.

    Raises:
        UserError: if a value is not finite.
    """
    items_ID = read_item_embeddings(context.inputs["backbone"])
    size = shape_of(context.config.llm).hidden_size
    generator = torch.Generator().manual_seed(context.seed)
    map_DH = torch.randn(items_ID.shape[1], size, generator=generator) / size**0.5
    write_knowledge(context.folder, items_ID @ map_DH, context.interactions)
    return {}
