"""Computes the knowledge of items shard by shard (paper, Section 4.2), for a new store or to extend one.

Shapes: I items (row 0 is padding), N items to compute, R items of a shard, B items of a forward pass, D hidden size of
the backbone, H hidden size of the language model, K clusters.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor

from tslrec.knowledge.shard_files import ROWS
from tslrec.knowledge.shards import P, Shards
from tslrec.knowledge.store import CATEGORIES, KNOWLEDGE, Shard
from tslrec.knowledge.store_plan import StorePlan
from tslrec.llm.prompted import KeysAndValues
from tslrec.llm.readout import PAPER_READOUT, Readout
from tslrec.stages.sft.model import PreferenceLLM
from tslrec.system.consoles import plain_console
from tslrec.system.errors import UserError
from tslrec.system.meter import Meter
from tslrec.system.row_tables import Table, read_rows, slices

log = logging.getLogger(__name__)


@torch.inference_mode()
def augment(
    model: PreferenceLLM,
    items_RD: Tensor,
    *,
    batch_size: int,
    prefix: KeysAndValues | None = None,
    reading: Readout = PAPER_READOUT,
    items_R: NDArray[np.int64] | None = None,
    advance: Callable[[int], None] = lambda items: None,
) -> tuple[Tensor, Tensor]:
    """Runs each item through the model as a user who bought nothing else: Eq. 1 and 2 with one item.

    Args:
        model: the preference model; its item table is replaced by `items_RD`.
        items_RD: standardised item embeddings.
        batch_size: items per forward pass.
        prefix: result of `model.run_prefix`, which serves the whole catalogue; None runs the instruction with each
            batch.
        reading: layer and position of the knowledge.
        items_R: the numbers of these items, by which the model knows their titles; None: 1..R.
        advance: called after each batch with the number of its items.

    Returns:
        The knowledge-enhanced embeddings, float32 `[R, H]`, and the inferred category distributions, float32 `[R, K]`.
    """
    model.items_ID = F.pad(items_RD, (0, 0, 1, 0)).to(model.items_ID.device)
    rows = len(items_RD)
    packer = model.packer if items_R is None else model.packer.of_items(items_R)
    knowledge_RH = torch.empty(rows, model.knowledge_size)
    categories_RK = torch.empty(rows, model.group_head.out_features)
    for batch in slices(rows, size=batch_size):
        items_B = np.arange(batch.start, batch.stop) + 1
        output = model.forward_with_readout(packer(list(items_B[:, None])).to(model.items_ID.device), prefix, reading)
        knowledge_RH[batch] = output.knowledge_BH.float().cpu()
        categories_RK[batch] = output.logits_BK.float().softmax(dim=1).cpu()
        advance(len(items_B))
    return knowledge_RH, categories_RK


def fill_shards(
    shards: Shards[StorePlan],
    make_model: Callable[[], PreferenceLLM],
    item_embeddings_ID: Table,
    items_N: NDArray[np.int64],
    *,
    batch_size: int,
    reading: Readout,
    precision: str,
    first: bool,
    unfinished: Callable[[], bool],
    facts: Callable[[], dict[str, Any]],
) -> None:
    """Computes the missing shards of a store, together with the other processes of the job.

    Rank 0 returns only when all shards are there; the other ranks return when no shard is free.

    Args:
        shards: the store's shards.
        make_model: loads the trained model onto its device; called only if a shard is missing.
        item_embeddings_ID: the backbone's item embeddings `[I + 1, D]`, read one shard at a time.
        items_N: the items to compute, in the order of the store's rows.
        batch_size: items per forward pass.
        reading: layer and position of the knowledge.
        precision: precision of the language model, as Lightning names it.
        first: whether this process is rank 0.
        unfinished: whether the store is still unfinished.
        facts: what a shard's manifest records of this process.

    Raises:
        UserError: if a value is not finite.
    """
    if not shards.missing:
        return
    model = make_model()
    with torch.inference_mode(), autocast(precision, model.items_ID.device):
        prefix = model.run_prefix() if model.shared_prefix else None
    columns = (TextColumn("augment · items"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=plain_console(quiet=not first), transient=True) as progress:
        task = progress.add_task("", total=len(items_N))

        def compute(span: slice) -> dict[str, Tensor]:
            progress.update(task, completed=shards.finished_rows)
            items_RD = shards.plan.scaling(read_rows(item_embeddings_ID, items_N[span]))
            with autocast(precision, model.items_ID.device):
                knowledge_RH, categories_RK = augment(
                    model,
                    items_RD,
                    batch_size=batch_size,
                    prefix=prefix,
                    reading=reading,
                    items_R=items_N[span],
                    advance=lambda items: progress.advance(task, items),
                )
            if not (torch.isfinite(knowledge_RH).all() and torch.isfinite(categories_RK).all()):
                raise UserError("augment: the language model gave values that are not finite; use another llm.dtype")
            return {KNOWLEDGE: knowledge_RH, CATEGORIES: categories_RK}

        shards.work(compute, unfinished=unfinished, facts=facts, wait_for_others=first)


def begin_or_resume(stage: str, folder: Path, plan: P, meter: Meter) -> tuple[Shards[P], int]:
    """Begins the result of a stage or resumes it, on rank 0.

    Args:
        stage: its name, for the log.
        folder: where the shards are written.
        plan: what is wanted.
        meter: continues from the time that the earlier run had spent.

    Returns:
        The shards, and the number of finished ones that an earlier run had left.

    Raises:
        UserError: if the earlier run made its shards from something else.
    """
    shards = Shards.begin_or_resume(folder, plan)
    if found := shards.continue_meter(meter):
        log.info(f"{stage}: resumes after {found:,} of {shards.num_shards:,} shards")
    return shards, found


def finished_shards(shards: Shards[StorePlan]) -> list[tuple[Path, Shard]]:
    """The file and the description of each shard, in order; all shards must be finished."""
    found = []
    for number in range(shards.plan.num_shards):
        manifest, span = shards.manifest(number), shards.plan.span(number)
        shard = Shard(span.stop - span.start, manifest["process"], manifest["created"])
        found.append((shards.path(number) / ROWS, shard))
    return found


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Autocast as Lightning's trainer would apply it, for code that runs outside of a trainer.

    Args:
        precision: as Lightning names it. Only the `-mixed` ones cast; with the others the weights' dtype decides.
        device: on which the code runs.
    """
    dtype = torch.float16 if precision.startswith("16") else torch.bfloat16
    return torch.autocast(device.type, dtype=dtype, enabled=precision.endswith("mixed"))
