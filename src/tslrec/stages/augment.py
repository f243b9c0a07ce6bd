"""Stage 4 of the pipeline: what the trained language model knows of each item (paper, Section 4.2).

The catalogue is streamed: the processes of a job share the work shard by shard, and none holds more than one shard in
memory.

Shapes: I items (row 0 is padding), R items of a slice, T likeliest categories, D hidden size of the backbone,
K clusters.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tslrec.data.item_titles import read_item_titles
from tslrec.knowledge.origin import Origin
from tslrec.knowledge.shards import Shards
from tslrec.knowledge.store import CATEGORIES, KnowledgeStore, write_store
from tslrec.knowledge.store_plan import StorePlan
from tslrec.knowledge.table import ItemLocations
from tslrec.llm.adapter import digest_trained
from tslrec.llm.item_input import ItemInput
from tslrec.llm.item_scaling import Scaling
from tslrec.llm.readout import Readout
from tslrec.llm.weights_source import ResolvedSource, resolve
from tslrec.stages.context import Earlier, StageContext
from tslrec.stages.extending import extend_store
from tslrec.stages.extension import Catalogue, EarlierStore, Extension
from tslrec.stages.outputs import centroids, clusters, item_embeddings
from tslrec.stages.sft.items import items_of
from tslrec.stages.sft.loading import load_trained
from tslrec.stages.sft.model import PreferenceLLM
from tslrec.stages.sft.prompt import INSTRUCTION, RESPONSE
from tslrec.stages.shard_filling import begin_or_resume, fill_shards, finished_shards
from tslrec.system.hashing import digest_item_map, digest_rows
from tslrec.system.processes import is_rank_zero, start_other_processes
from tslrec.system.row_tables import FileTable, slices

TOP = 3
"""Number of the likeliest categories among which the paper's case C2 looks for the cluster (Section 5.4)."""


def run(context: StageContext) -> dict[str, Any]:
    """Writes the knowledge store (see `tslrec.knowledge.store`); a run that is continued extends the earlier one.

    Args:
        context: needs the results of `backbone`, `preferences` and `sft`, and `titles` where `sft.item_input` reads
            them.

    Returns:
        On rank 0: `C1`, `C2` and `C3`, the shares of the items in the cases of Section 5.4; `shards`, their number;
        `shards_found`, how many of them an earlier run had left; and `ari_categories`, the adjusted Rand index of the
        inferred against the true categories, if the data set knows these; of an extended store also `items_taken_over`
        and `items_computed`. On other ranks nothing.

    Raises:
        UserError: if a value is not finite, or an earlier run made its shards from something else.
    """
    if context.earlier is not None:
        return extend(context, context.earlier)
    config = context.config
    trainer = context.make_trainer(max_epochs=1, llm=True)
    start_other_processes(trainer)
    source = resolve(config.llm, Path(config.cache))
    items = items_of(context, source)
    item_embeddings_ID = item_embeddings(context.inputs["backbone"])
    folder, first, unfinished = context.checkpoints.folder, is_rank_zero(), context.folder.is_dir
    num_items = context.interactions.num_items
    if first:
        origin = origin_of(context, source, item_embeddings_ID, items)
        scaling, size = Scaling.of(item_embeddings_ID), config.sft.augment_shard_size
        plan = StorePlan(origin=origin, scaling=scaling, num_rows=num_items, shard_size=size)
        shards, found = begin_or_resume("augment", folder, plan, context.meter)
    elif (joined := Shards.join(folder, StorePlan, unfinished)) is not None:
        shards, found = joined, 0
    else:
        return {}

    def make_model() -> PreferenceLLM:
        # The model gets its item embeddings later, shard by shard.
        no_items_ID = torch.zeros(1, item_embeddings_ID.shape[1])
        model = load_trained(context.inputs["sft"], config.llm, source, no_items_ID, items)
        return model.to(trainer.strategy.root_device)

    fill_shards(
        shards,
        make_model,
        item_embeddings_ID,
        np.arange(1, num_items + 1),
        batch_size=config.sft.augment_batch_size,
        reading=Readout.of(config.knowledge),
        precision=config.trainer.llm_precision,
        first=first,
        unfinished=unfinished,
        facts=context.meter.facts,
    )
    if not first:
        return {}
    plan = shards.plan
    locations = ItemLocations.in_order(num_items, plan.shard_size)
    raw_ids = context.interactions.ids.items[1:]
    store = write_store(context.folder, plan.origin, plan.scaling, finished_shards(shards), locations, raw_ids)
    return {"shards": plan.num_shards, "shards_found": found, **compare(store, context)}


def extend(context: StageContext, earlier: Earlier) -> dict[str, Any]:
    """Writes the earlier store with the new items added; only these run through the language model.

    Returns:
        See `run`.

    Raises:
        UserError: if an earlier item is missing or has another embedding or title, or a value is not finite.
    """
    store = EarlierStore(earlier.folders["augment"], Path(context.config.cache))
    embeddings = item_embeddings(context.inputs["backbone"])
    titles = read_item_titles(context.inputs["titles"]).texts if "titles" in context.inputs else None
    catalogue = Catalogue(context.interactions.ids.items[1:], embeddings, embeddings.path, titles)
    extended = extend_store(
        store,
        catalogue,
        Extension.of(store, catalogue),
        output=context.folder,
        unfinished_shards=context.checkpoints.folder,
        trainer=context.make_trainer(max_epochs=1, llm=True),
        sft=context.config.sft,
        meter=context.meter,
    )
    return {} if extended is None else {**extended.facts, **compare(extended.store, context)}


def origin_of(context: StageContext, source: ResolvedSource, item_embeddings_ID: FileTable, items: ItemInput) -> Origin:
    """What the store of this run is made from.

    Args:
        context: the stage's.
        source: the language model's weights.
        item_embeddings_ID: the backbone's item embeddings `[I + 1, D]`.
        items: what the language model reads of each item.
    """
    config, sft = context.config, context.config.sft
    centroids_KD = centroids(context.inputs["preferences"])
    return Origin(
        base_model=source.identity,
        adapter=digest_trained(context.inputs["sft"]),
        prompt=(INSTRUCTION, RESPONSE),
        reading=asdict(config.knowledge),
        num_clusters=len(centroids_KD),
        centroids=digest_rows(centroids_KD),
        item_map=digest_item_map(context.interactions.ids.items[1:]),
        item_embeddings=digest_rows(item_embeddings_ID, start=1),
        item_input=sft.item_input,
        title_tokens=sft.title_tokens if sft.reads_titles else None,
        titles=items.digest_titles(range(1, context.interactions.num_items + 1)),
    )


def compare(store: KnowledgeStore, context: StageContext) -> dict[str, float]:
    """Compares the inferred categories with the clusters, and with the true categories if they are known.

    Args:
        store: the finished store.
        context: the stage's.

    Returns:
        `C1`, `C2` and `C3` as shares of the items (see `count_cases`), and `ari_categories` (see `run`).
    """
    clusters_I = clusters(context.inputs["preferences"]).numpy()
    categories_IK = store.table(CATEGORIES)
    counts = sum(
        (count_cases(categories_IK[each], clusters_I[each]) for each in slices(len(categories_IK), start=1)),
        start=np.zeros(3, dtype=np.int64),
    )
    metrics = {case: float(count / store.num_items) for case, count in zip(("C1", "C2", "C3"), counts, strict=True)}
    truth = context.interactions.true_categories
    if truth is not None:
        from sklearn.metrics import adjusted_rand_score

        metrics["ari_categories"] = float(adjusted_rand_score(truth[1:], store.index["category"].to_numpy()))
    return metrics


def count_cases(categories_RK: Tensor, clusters_R: NDArray[np.int64]) -> NDArray[np.int64]:
    """Counts items by how their inferred categories agree with their cluster (Section 5.4).

    Args:
        categories_RK: the inferred category distributions.
        clusters_R: the cluster of each item.

    Returns:
        Three numbers of items. C1: the likeliest category is the cluster. C2: it is not, but the cluster is among the
        three likeliest. C3: all others.
    """
    top_RT = categories_RK.topk(min(TOP, categories_RK.shape[1]), dim=1).indices.numpy()
    same_RT = top_RT == clusters_R[:, None]
    first, among = int(same_RT[:, 0].sum()), int(same_RT.any(axis=1).sum())
    return np.array([first, among - first, len(same_RT) - among])
