"""An ablation of stages 2 and 3: what the language model makes of each item without any fine-tuning.

Shapes: I items (row 0 is padding), B items of a batch, H hidden size of the language model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tslrec.knowledge.table_file import write_knowledge
from tslrec.llm.adapter_files import new_model, read_item_embeddings
from tslrec.llm.preference_model import PreferenceLLM
from tslrec.llm.source import resolve
from tslrec.stages.augment import autocast
from tslrec.stages.context import StageContext

VERSION = 1
TOGETHER = False


def run(context: StageContext) -> dict[str, Any]:
    """Writes h of Eq. 1 for each item by itself, read through a projection as it is before training."""
    config = context.config
    source = resolve(config.llm, Path(config.cache))
    items_ID = read_item_embeddings(context.inputs["backbone"])
    model = new_model(config.llm, source, items_ID, config.preferences.num_clusters).eval()
    model.to(context.make_trainer(max_epochs=1, llm=True).strategy.root_device)
    with autocast(config.trainer.llm_precision, model.items_ID.device):
        knowledge_IH = read_items(model, batch_size=config.sft.augment_batch_size)
    write_knowledge(context.folder, knowledge_IH, context.interactions)
    return {}


@torch.inference_mode()
def read_items(model: PreferenceLLM, *, batch_size: int) -> Tensor:
    """The h of each item as a history of its own, float32 `[I + 1, H]`, row 0 zeros; the instruction runs once."""
    device, rows = model.items_ID.device, len(model.items_ID)
    knowledge_IH = torch.zeros(rows, model.knowledge_size)
    prefix = model.run_prefix() if model.shared_prefix else None
    for start in range(1, rows, batch_size):
        items_B = np.arange(start, min(start + batch_size, rows))
        output = model(model.packer(list(items_B[:, None])).to(device), prefix)
        knowledge_IH[items_B] = output.knowledge_BH.float().cpu()
    return knowledge_IH
