"""Extends a knowledge store to a catalogue that grew: only the new items run through the language model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tslrec import ranks
from tslrec.artifacts import Artifact, ArtifactStore
from tslrec.config import Config
from tslrec.knowledge.extension import Catalogue, Earlier, Extension, extended_recipe
from tslrec.knowledge.shards import Plan, Shards
from tslrec.knowledge.store import write_store
from tslrec.llm.adapter_files import load_trained
from tslrec.llm.preference_model import PreferenceLLM
from tslrec.llm.reading import Reading
from tslrec.measuring import Meter
from tslrec.stages.augment import begin, fill, finished
from tslrec.trainers import StageTrainers


def extend(folder: Path, items: Path, item_embeddings: Path, config: Config, tell: Callable[[str], None]) -> Artifact:
    """The extended store, an artifact beside the earlier one, which the processes of a job make together.

    Args:
        folder: the earlier store, in a run's artifacts.
        items: the item map of the grown catalogue.
        item_embeddings: of the grown catalogue.
        config: where and how to compute; all else is the store's.
        tell: says a line to the person.

    Raises:
        UserError: if the store and the catalogue do not fit.
    """
    job, first = ranks.join_job(), ranks.is_first()
    earlier = Earlier(folder, Path(config.cache))
    catalogue = Catalogue.read(items, item_embeddings)
    extension = Extension.of(earlier, catalogue)
    recipe = extended_recipe(earlier, extension.origin)
    store, meter = ArtifactStore(earlier.root, job, first), Meter()

    def make_model(device: torch.device) -> PreferenceLLM:
        no_items_ID = torch.zeros(1, catalogue.item_embeddings_ID.shape[1])
        return load_trained(earlier.sft, earlier.llm, earlier.source, no_items_ID).to(device)

    def compute(output: Path) -> dict[str, Any]:
        trainer = StageTrainers(config.trainer, "extend", output)(max_epochs=1, llm=True)
        ranks.start_others(trainer)
        kept = store.checkpoints(recipe)
        if first:
            size = config.sft.augment_shard_size
            plan = Plan(extension.origin, earlier.store.scaling, len(extension.new_N), size)
            shards, found = begin(kept, plan, meter, tell)
        elif (joined := Shards.join(kept, output.is_dir)) is not None:
            shards, found = joined, 0
        else:
            return {}
        fill(
            shards,
            lambda: make_model(trainer.strategy.root_device),
            catalogue.item_embeddings_ID,
            extension.new_N,
            batch_size=config.sft.augment_batch_size,
            reading=Reading(**earlier.store.origin.reading),
            precision=earlier.manifest["config"]["precision"],
            first=first,
            goes_on=output.is_dir,
            facts=meter.facts,
        )
        if not first:
            return {}
        old = list(zip(earlier.store.files(), earlier.store.shards, strict=True))
        files = [*old, *finished(shards)]
        places = extension.places(len(old), shards.plan.shard_size)
        write_store(output, extension.origin, shards.plan.scaling, files, places, catalogue.raw_ids)
        return {
            "items_taken_over": earlier.store.num_items,
            "items_computed": len(extension.new_N),
            "shards": len(files),
            "shards_found": found,
        }

    return store.produce(recipe, compute, meter.facts, together=True)
