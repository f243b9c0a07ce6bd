"""Extends a knowledge store to a catalogue that grew: only the new items run through the language model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tslrec.config import Config
from tslrec.knowledge.origin import Origin
from tslrec.pipeline.artifacts import Artifact, ArtifactStore, Recipe
from tslrec.pipeline.unfinished import WorkRecord
from tslrec.stages.extending import extend_store
from tslrec.stages.extension import STAGE, Catalogue, EarlierStore, Extension
from tslrec.system import processes
from tslrec.system.errors import UserError
from tslrec.system.meter import Meter
from tslrec.training.checkpoints import Checkpoints
from tslrec.training.trainer import StageTrainers


def extend(folder: Path, items: Path, item_embeddings: Path, config: Config, titles: Path | None = None) -> Artifact:
    """Computes the extended store, an artifact beside the earlier one; all processes of a job share the work.

    Args:
        folder: the earlier store, in a run's artifacts.
        items: the item map of the grown catalogue, as a run writes it (`items.parquet`).
        item_embeddings: the item embeddings of the grown catalogue (`item_embeddings.safetensors`).
        config: `trainer`, `cache` and the `sft.augment_…` settings; every other setting is the earlier store's.
        titles: of the grown catalogue's items, for a store whose language model reads them.

    Raises:
        UserError: if the store and the catalogue do not fit, no item is new, or a computed value is not finite.
    """
    job, first = processes.join_job(), processes.is_rank_zero()
    earlier = EarlierStore(folder, Path(config.cache))
    catalogue = Catalogue.read(items, item_embeddings, titles)
    extension = Extension.of(earlier, catalogue)
    if not len(extension.new_N):
        raise UserError(f"{earlier.folder}: has every item of the catalogue already; there is nothing to compute")
    recipe = extended_recipe(earlier, extension.origin)
    store, meter = ArtifactStore(earlier.root, job, first), Meter()

    def compute(output: Path) -> dict[str, Any]:
        kept = store.checkpoints(recipe)
        trainers = StageTrainers(config.trainer, "extend", output, checkpoints=Checkpoints(kept), meter=meter)
        extended = extend_store(
            earlier,
            catalogue,
            extension,
            output=output,
            unfinished_shards=kept,
            trainer=trainers(max_epochs=1, llm=True),
            sft=config.sft,
            meter=meter,
        )
        return {} if extended is None else dict(extended.facts)

    with WorkRecord(earlier.root, job, first, {"extended": recipe.key}) as work:
        store.need = work.need
        return store.produce(recipe, compute, meter.facts, together=True)


def extended_recipe(earlier: EarlierStore, origin: Origin) -> Recipe:
    """What determines the extended store: the earlier store's recipe, its key, and the grown catalogue.

    Args:
        earlier: the earlier store.
        origin: of the extended store.
    """
    manifest = earlier.manifest
    grown = {"item_map": origin.item_map, "item_embeddings": origin.item_embeddings}
    if origin.titles is not None:
        grown["titles"] = origin.titles
    return Recipe(
        stage=STAGE,
        label=manifest["label"],
        config={**manifest["config"], "extended_to": grown},
        inputs={**manifest["inputs"], STAGE: manifest["key"]},
        seed=manifest["seed"],
        version=earlier.manifest["version"],
    )
