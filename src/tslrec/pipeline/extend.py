"""Extends a knowledge store to a catalogue that grew: only the new items run through the language model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tslrec.config import Config
from tslrec.knowledge.shards import Plan, Shards
from tslrec.knowledge.store import write_store
from tslrec.llm.readout import Readout
from tslrec.pipeline.artifacts import Artifact, ArtifactStore
from tslrec.pipeline.extension import Catalogue, EarlierStore, Extension, extended_recipe
from tslrec.stages.sft.loading import load_trained
from tslrec.stages.sft.model import PreferenceLLM
from tslrec.stages.shard_filling import begin_or_resume, fill_shards, finished_shards
from tslrec.system import processes
from tslrec.system.meter import Meter
from tslrec.training.checkpoints import Checkpoints
from tslrec.training.trainer import StageTrainers


def extend(folder: Path, items: Path, item_embeddings: Path, config: Config) -> Artifact:
    """Computes the extended store, an artifact beside the earlier one; all processes of a job share the work.

    Args:
        folder: the earlier store, in a run's artifacts.
        items: the item map of the grown catalogue, as a run writes it (`items.parquet`).
        item_embeddings: the item embeddings of the grown catalogue (`item_embeddings.safetensors`).
        config: `trainer`, `cache` and the `sft.augment_…` settings; every other setting is the earlier store's.

    Raises:
        UserError: if the store and the catalogue do not fit, or a computed value is not finite.
    """
    job, first = processes.join_job(), processes.is_rank_zero()
    earlier = EarlierStore(folder, Path(config.cache))
    catalogue = Catalogue.read(items, item_embeddings)
    extension = Extension.of(earlier, catalogue)
    recipe = extended_recipe(earlier, extension.origin)
    store, meter = ArtifactStore(earlier.root, job, first), Meter()

    def make_model(device: torch.device) -> PreferenceLLM:
        no_items_ID = torch.zeros(1, catalogue.item_embeddings_ID.shape[1])
        return load_trained(earlier.sft, earlier.llm, earlier.source, no_items_ID).to(device)

    def compute(output: Path) -> dict[str, Any]:
        kept = store.checkpoints(recipe)
        trainers = StageTrainers(config.trainer, "extend", output, checkpoints=Checkpoints(kept), meter=meter)
        trainer = trainers(max_epochs=1, llm=True)
        processes.start_other_processes(trainer)
        if first:
            size = config.sft.augment_shard_size
            plan = Plan(extension.origin, earlier.store.scaling, len(extension.new_N), size)
            shards, found = begin_or_resume(kept, plan, meter)
        elif (joined := Shards.join(kept, output.is_dir)) is not None:
            shards, found = joined, 0
        else:
            return {}
        fill_shards(
            shards,
            lambda: make_model(trainer.strategy.root_device),
            catalogue.item_embeddings_ID,
            extension.new_N,
            batch_size=config.sft.augment_batch_size,
            reading=Readout(**earlier.store.origin.reading),
            precision=earlier.manifest["config"]["precision"],
            first=first,
            unfinished=output.is_dir,
            facts=meter.facts,
        )
        if not first:
            return {}
        old = list(zip(earlier.store.files(), earlier.store.shards, strict=True))
        files = [*old, *finished_shards(shards)]
        places = extension.places(len(old), shards.plan.shard_size)
        write_store(output, extension.origin, shards.plan.scaling, files, places, catalogue.raw_ids)
        return {
            "items_taken_over": earlier.store.num_items,
            "items_computed": len(extension.new_N),
            "shards": len(files),
            "shards_found": found,
        }

    return store.produce(recipe, compute, meter.facts, together=True)
