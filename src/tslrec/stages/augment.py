"""Stage 4 of the pipeline: what the trained language model knows of each item (paper, Section 4.2).

The catalogue is streamed: the processes of a job share its shards, and none ever holds more than one of them.

Shapes: I items (row 0 is padding), R items of a shard, B items of a batch, D hidden size of the backbone, H hidden size
of the language model, K clusters.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from tslrec.errors import UserError
from tslrec.knowledge.origin import Origin, digest_item_map, digest_rows
from tslrec.knowledge.shards import ROWS, Plan, Shards
from tslrec.knowledge.store import CATEGORIES, KNOWLEDGE, KnowledgeStore, Places, Shard, write_store
from tslrec.llm.adapter_files import digest_trained, item_embeddings, load_trained
from tslrec.llm.preference_model import PreferenceLLM
from tslrec.llm.prompt import INSTRUCTION, RESPONSE
from tslrec.llm.prompted import H_U, KeysAndValues
from tslrec.llm.reading import Reading
from tslrec.llm.scaling import Scaling
from tslrec.llm.source import ResolvedSource, resolve
from tslrec.measuring import Meter
from tslrec.ranks import is_first, start_others
from tslrec.stages.context import StageContext
from tslrec.streaming import FileTable, Table, read_rows, slices

VERSION = 3
TOGETHER = True

TOP = 3
"""How many of the likeliest categories the paper's case C2 looks at (Section 5.4)."""


@torch.inference_mode()
def augment(
    model: PreferenceLLM,
    items_RD: Tensor,
    *,
    batch_size: int,
    prefix: KeysAndValues | None = None,
    reading: Reading = H_U,
    advance: Callable[[int], None] = lambda items: None,
) -> tuple[Tensor, Tensor]:
    """Each item as a virtual user who bought nothing else: Eq. 1 and 2 with one item.

    Args:
        model: its own table of items is replaced by these.
        items_RD: standardised item embeddings.
        batch_size: items run at a time.
        prefix: what `model.run_prefix` gave, which is the same for the whole catalogue.
        reading: where the knowledge is read.
        advance: told of the items of each batch.

    Returns:
        The knowledge-enhanced embeddings, float32 `[R, H]`, and the inferred category distributions, float32 `[R, K]`.
    """
    model.items_ID = F.pad(items_RD, (0, 0, 1, 0)).to(model.items_ID.device)
    rows = len(items_RD)
    knowledge_RH = torch.empty(rows, model.knowledge_size)
    categories_RK = torch.empty(rows, model.group_head.out_features)
    for batch in slices(rows, size=batch_size):
        items_B = np.arange(batch.start, batch.stop) + 1
        output = model.know(model.packer(list(items_B[:, None])).to(model.items_ID.device), prefix, reading)
        knowledge_RH[batch] = output.knowledge_BH.float().cpu()
        categories_RK[batch] = output.logits_BK.float().softmax(dim=1).cpu()
        advance(len(items_B))
    return knowledge_RH, categories_RK


def fill(
    shards: Shards,
    make_model: Callable[[], PreferenceLLM],
    item_embeddings_ID: Table,
    items_N: NDArray[np.int64],
    *,
    batch_size: int,
    reading: Reading,
    precision: str,
    first: bool,
    goes_on: Callable[[], bool],
    facts: Callable[[], dict[str, Any]],
) -> None:
    """Computes what is missing of a store; the first process does not return before all of it is there.

    Args:
        shards: of the store.
        make_model: loads the trained model, to where it computes; called where anything is missing.
        item_embeddings_ID: read a shard at a time.
        items_N: the items that are to be computed, in the order of the rows.
        batch_size: see `augment`.
        reading: see `augment`.
        precision: Lightning's, of the language model.
        first: whether this is the first process of the job.
        goes_on: whether the store is still in the making.
        facts: what a shard's manifest records.

    Raises:
        UserError: if a value is not finite.
    """
    if not shards.missing:
        return
    model = make_model()
    with torch.inference_mode(), autocast(precision, model.items_ID.device):
        prefix = model.run_prefix() if model.shared_prefix else None
    columns = (TextColumn("augment · items"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(quiet=not first), transient=True) as progress:
        task = progress.add_task("", total=len(items_N))

        def compute(span: slice) -> dict[str, Tensor]:
            done = shards.plan.num_rows - len(shards.missing) * shards.plan.shard_size
            progress.update(task, completed=max(0, done))
            items_RD = shards.plan.scaling(read_rows(item_embeddings_ID, items_N[span]))
            with autocast(precision, model.items_ID.device):
                knowledge_RH, categories_RK = augment(
                    model,
                    items_RD,
                    batch_size=batch_size,
                    prefix=prefix,
                    reading=reading,
                    advance=lambda items: progress.advance(task, items),
                )
            if not (torch.isfinite(knowledge_RH).all() and torch.isfinite(categories_RK).all()):
                raise UserError("augment: the language model gave values that are not finite; use another llm.dtype")
            return {KNOWLEDGE: knowledge_RH, CATEGORIES: categories_RK}

        shards.work(compute, goes_on=goes_on, facts=facts, to_the_end=first)


def run(context: StageContext) -> dict[str, Any]:
    """Writes the knowledge store (see `tslrec.knowledge.store`).

    Returns:
        Of the first process: the cases C1, C2 and C3, the number of shards, how many of them an earlier run had left,
        and the adjusted Rand index against the true categories where they are known.

    Raises:
        UserError: if a value is not finite, or what an earlier run left was made from something else.
    """
    config = context.config
    trainer = context.make_trainer(max_epochs=1, llm=True)
    start_others(trainer)
    source = resolve(config.llm, Path(config.cache))
    item_embeddings_ID = item_embeddings(context.inputs["backbone"])
    folder, first, goes_on = context.checkpoints.folder, is_first(), context.folder.is_dir
    num_items = context.interactions.num_items
    if first:
        origin = origin_of(context, source, item_embeddings_ID)
        plan = Plan(origin, Scaling.of(item_embeddings_ID), num_items, config.sft.augment_shard_size)
        shards, found = begin(folder, plan, context.meter, context.checkpoints.tell)
    elif (joined := Shards.join(folder, goes_on)) is not None:
        shards, found = joined, 0
    else:
        return {}

    def make_model() -> PreferenceLLM:
        # Its items come shard by shard.
        no_items_ID = torch.zeros(1, item_embeddings_ID.shape[1])
        model = load_trained(context.inputs["sft"], config.llm, source, no_items_ID)
        return model.to(trainer.strategy.root_device)

    fill(
        shards,
        make_model,
        item_embeddings_ID,
        np.arange(1, num_items + 1),
        batch_size=config.sft.augment_batch_size,
        reading=Reading.of(config.knowledge),
        precision=config.trainer.llm_precision,
        first=first,
        goes_on=goes_on,
        facts=context.meter.facts,
    )
    if not first:
        return {}
    plan = shards.plan
    places = Places.in_order(num_items, plan.shard_size)
    raw_ids = context.interactions.ids.items[1:]
    store = write_store(context.folder, plan.origin, plan.scaling, finished(shards), places, raw_ids)
    return {"shards": plan.num_shards, "shards_found": found, **compare(store, context)}


def origin_of(context: StageContext, source: ResolvedSource, item_embeddings_ID: FileTable) -> Origin:
    """What the store of this run is made from."""
    config = context.config
    centroids_KD = FileTable(context.inputs["preferences"] / "preferences.safetensors", "centroids")
    return Origin(
        base_model=source.identity,
        adapter=digest_trained(context.inputs["sft"]),
        prompt=(INSTRUCTION, RESPONSE),
        reading=asdict(config.knowledge),
        num_clusters=len(centroids_KD),
        centroids=digest_rows(centroids_KD),
        item_map=digest_item_map(context.interactions.ids.items[1:]),
        item_embeddings=digest_rows(item_embeddings_ID, start=1),
    )


def begin(folder: Path, plan: Plan, meter: Meter, tell: Callable[[str], None]) -> tuple[Shards, int]:
    """The shards as the first process finds them, and how many are there; what these took is added to the meter."""
    shards = Shards.begin(folder, plan, tell)
    manifests = [shards.manifest(number) for number in range(shards.plan.num_shards) if shards.path(number).is_dir()]
    if manifests:
        meter.go_on(max(manifests, key=lambda manifest: manifest["wall_seconds"]))
        tell(f"augment: goes on after {len(manifests):,} of {shards.plan.num_shards:,} shards")
    return shards, len(manifests)


def finished(shards: Shards) -> list[tuple[Path, Shard]]:
    """The files of all shards, and what the store tells of them."""
    found = []
    for number in range(shards.plan.num_shards):
        manifest, span = shards.manifest(number), shards.plan.span(number)
        shard = Shard(span.stop - span.start, manifest["process"], manifest["created"])
        found.append((shards.path(number) / ROWS, shard))
    return found


def compare(store: KnowledgeStore, context: StageContext) -> dict[str, float]:
    """How the inferred categories agree with the clusters, and with the truth where it is known."""
    table_I = FileTable(context.inputs["preferences"] / "preferences.safetensors", "clusters", dimensions=1)
    clusters_I = table_I[:].numpy()
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
    """Numbers of items by how the inferred categories agree with the cluster (Section 5.4).

    Returns:
        C1: the likeliest category is the cluster; C2: it is not, but the cluster is among the top three; C3: the
        others.
    """
    top_RT = categories_RK.topk(min(TOP, categories_RK.shape[1]), dim=1).indices.numpy()
    same_RT = top_RT == clusters_R[:, None]
    first, among = int(same_RT[:, 0].sum()), int(same_RT.any(axis=1).sum())
    return np.array([first, among - first, len(same_RT) - among])


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Lightning's mixed precisions for a function outside its trainer; in the others the weights' dtype decides."""
    dtype = torch.float16 if precision.startswith("16") else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=precision.endswith("mixed"))
