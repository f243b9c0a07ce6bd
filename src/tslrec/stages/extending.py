"""Computes the rows of new items for a knowledge store, and writes the extended store beside the earlier one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import lightning
import torch

from tslrec.knowledge.shards import Shards
from tslrec.knowledge.store import KnowledgeStore, write_store
from tslrec.knowledge.store_plan import StorePlan
from tslrec.llm.readout import Readout
from tslrec.settings.preference_sft import SFTConfig
from tslrec.stages.extension import Catalogue, EarlierStore, Extension
from tslrec.stages.sft.loading import load_trained
from tslrec.stages.sft.model import PreferenceLLM
from tslrec.stages.shard_filling import begin_or_resume, fill_shards, finished_shards
from tslrec.system import processes
from tslrec.system.meter import Meter


@dataclass(frozen=True)
class Extended:
    """An extended store.

    Attributes:
        store: the store.
        facts: `items_taken_over` and `items_computed`; `shards`, their number in all; `shards_found`, how many of the
            new ones an interrupted run had left.
    """

    store: KnowledgeStore
    facts: dict[str, int]


def extend_store(
    earlier: EarlierStore,
    catalogue: Catalogue,
    extension: Extension,
    *,
    output: Path,
    unfinished_shards: Path,
    trainer: lightning.Trainer,
    sft: SFTConfig,
    meter: Meter,
) -> Extended | None:
    """Runs the new items through the language model; all processes of a job share the work.

    Args:
        earlier: the store that is extended.
        catalogue: today's items.
        extension: which of them are new.
        output: the folder of the extended store.
        unfinished_shards: where shards are kept until the store is complete.
        trainer: its strategy names the device.
        sft: `augment_batch_size` and `augment_shard_size`.
        meter: of the stage.

    Returns:
        The store on rank 0; None on the other ranks.

    Raises:
        UserError: if a computed value is not finite, or an interrupted run made its shards from something else.
    """
    first = processes.is_rank_zero()
    processes.start_other_processes(trainer)
    if first:
        rows, size = len(extension.new_N), sft.augment_shard_size
        scaling = earlier.store.scaling
        plan = StorePlan(origin=extension.origin, scaling=scaling, num_rows=rows, shard_size=size)
        shards, found = begin_or_resume("augment", unfinished_shards, plan, meter)
    elif (joined := Shards.join(unfinished_shards, StorePlan, output.is_dir)) is not None:
        shards, found = joined, 0
    else:
        return None

    def make_model() -> PreferenceLLM:
        no_items_ID = torch.zeros(1, catalogue.item_embeddings_ID.shape[1])
        model = load_trained(earlier.sft, earlier.llm, earlier.source, no_items_ID, extension.items)
        return model.to(trainer.strategy.root_device)

    fill_shards(
        shards,
        make_model,
        catalogue.item_embeddings_ID,
        extension.new_N,
        batch_size=sft.augment_batch_size,
        reading=Readout(**earlier.store.origin.reading),
        precision=earlier.manifest["config"]["precision"],
        first=first,
        unfinished=output.is_dir,
        facts=meter.facts,
    )
    if not first:
        return None
    old = list(zip(earlier.store.files(), earlier.store.shards, strict=True))
    files = [*old, *finished_shards(shards)]
    places = extension.places(len(old), shards.plan.shard_size)
    store = write_store(output, extension.origin, shards.plan.scaling, files, places, catalogue.raw_ids)
    facts = {
        "items_taken_over": earlier.store.num_items,
        "items_computed": len(extension.new_N),
        "shards": len(files),
        "shards_found": found,
    }
    return Extended(store, facts)
