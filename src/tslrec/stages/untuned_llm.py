"""An ablation of stages 2 and 3: what the language model makes of each item without any fine-tuning.

Shapes: I items (row 0 is padding), R items without it, D and H hidden sizes of the backbone and the language model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from tslrec.knowledge.table_file import write_knowledge
from tslrec.llm.adapter_files import new_model, read_item_embeddings
from tslrec.llm.reading import Reading
from tslrec.llm.source import resolve
from tslrec.stages.augment import augment, autocast
from tslrec.stages.context import StageContext

VERSION = 3
TOGETHER = False


def run(context: StageContext) -> dict[str, Any]:
    """Writes h of Eq. 1 for each item by itself, read through a projection as it is before training."""
    config = context.config
    source = resolve(config.llm, Path(config.cache))
    items_ID = read_item_embeddings(context.inputs["backbone"])
    model = new_model(config.llm, source, items_ID, config.preferences.num_clusters).eval()
    model.to(context.make_trainer(max_epochs=1, llm=True).strategy.root_device)
    with torch.inference_mode(), autocast(config.trainer.llm_precision, model.items_ID.device):
        prefix = model.run_prefix() if model.shared_prefix else None
        knowledge_RH, _ = augment(
            model,
            model.items_ID[1:],
            batch_size=config.sft.augment_batch_size,
            prefix=prefix,
            reading=Reading.of(config.knowledge),
        )
    write_knowledge(context.folder, F.pad(knowledge_RH, (0, 0, 1, 0)), context.interactions)
    return {}
