"""Ablation of stages 2 to 4: the backbone's item embeddings take the place of the language model's knowledge."""

from __future__ import annotations

from typing import Any

from tslrec.knowledge.single_file import write_knowledge
from tslrec.stages.context import StageContext
from tslrec.stages.outputs import read_item_embeddings


def run(context: StageContext) -> dict[str, Any]:
    """Writes the backbone's item embeddings as knowledge; has no metrics.

    Raises:
        UserError: if a value is not finite.
    """
    write_knowledge(context.folder, read_item_embeddings(context.inputs["backbone"]), context.interactions)
    return {}
