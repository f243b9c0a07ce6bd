"""An ablation of stages 2 to 4: the knowledge of an item is what the backbone learnt of it."""

from __future__ import annotations

from typing import Any

from tslrec.knowledge.table_file import write_knowledge
from tslrec.llm.adapter_files import read_item_embeddings
from tslrec.stages.context import StageContext

VERSION = 1
TOGETHER = False


def run(context: StageContext) -> dict[str, Any]:
    """Writes the backbone's item embeddings as knowledge."""
    write_knowledge(context.folder, read_item_embeddings(context.inputs["backbone"]), context.interactions)
    return {}
