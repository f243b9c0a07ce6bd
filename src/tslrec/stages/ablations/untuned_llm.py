"""Ablation of stages 2 and 3: the knowledge of a language model that is not fine-tuned.

Shapes: I items (row 0 is padding), R items without padding, D hidden size of the backbone, H hidden size of the
language model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from tslrec.knowledge.single_file import write_knowledge
from tslrec.llm.readout import Readout
from tslrec.llm.weights_source import resolve
from tslrec.stages.context import StageContext
from tslrec.stages.outputs import read_item_embeddings
from tslrec.stages.sft.items import items_of
from tslrec.stages.sft.loading import new_model
from tslrec.stages.shard_filling import augment, autocast


def run(context: StageContext) -> dict[str, Any]:
    """Runs each item as a one-item user through the pretrained model, and writes h of Eq. 1 as knowledge.

    The item projection and the adapter are as before training. What is read of an item, `sft.item_input` says, as for
    the SFT. The stage has no metrics.

    Raises:
        UserError: if the weights cannot be loaded, or a value is not finite.
    """
    config = context.config
    source = resolve(config.llm, Path(config.cache))
    items_ID = read_item_embeddings(context.inputs["backbone"])
    items = items_of(context, source)
    model = new_model(config.llm, source, items_ID, config.preferences.num_clusters, items).eval()
    model.to(context.make_trainer(max_epochs=1, llm=True).strategy.root_device)
    with torch.inference_mode(), autocast(config.trainer.llm_precision, model.items_ID.device):
        prefix = model.run_prefix() if model.shared_prefix else None
        knowledge_RH, _ = augment(
            model,
            model.items_ID[1:],
            batch_size=config.sft.augment_batch_size,
            prefix=prefix,
            reading=Readout.of(config.knowledge),
        )
    write_knowledge(context.folder, F.pad(knowledge_RH, (0, 0, 1, 0)), context.interactions)
    return {}
