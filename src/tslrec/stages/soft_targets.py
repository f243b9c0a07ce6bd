"""What a teacher, the ensemble, thinks of each training target: the items that it scores highest, and their shares.

A teacher sees what stands before the target, so it answers the question that the target answers. Items that the user
had before are candidates, as they are in the softmax of a training; padding is none. The target itself may be among the
items or not: a training adds it (`SoftTargetsConfig.weight`).

Shapes: I items (row 0 of a table is padding), X training targets, K items of a target, B targets of a batch, L
positions, E size of a user vector.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.torch import save_file
from torch import Tensor

from tslrec.data.datamodule import padded_ranges
from tslrec.data.interactions import Interactions
from tslrec.data.windows import Prefixes, all_prefixes
from tslrec.evaluation.best_items import best_columns
from tslrec.evaluation.device_ranking import full_precision
from tslrec.evaluation.one_type import in_one_type
from tslrec.knowledge.shard_files import PLAN
from tslrec.settings.second_stages import SoftTargetsConfig
from tslrec.stages.calibration import calibrated_temperature
from tslrec.stages.context import StageContext
from tslrec.stages.fusion_inputs import Sources, check_item_map
from tslrec.stages.restored import Restored, restore
from tslrec.system.errors import UserError
from tslrec.system.files import write_json
from tslrec.system.row_tables import slices
from tslrec.system.safetensors_io import ID_MAP, load_tensors
from tslrec.system.shares import CLAIMS, Shares
from tslrec.training.soft_targets import SoftTargets

FILE = "soft_targets.safetensors"
"""`items` int32 and `shares` float32, both `[X, K]`, best first: a row for each item of a training part but the first,
in the flat order of interactions."""

SHARD = 8192
"""Targets of a shard: a killed run loses at most the one that it was computing."""

SCORE_BYTES = 64 * 2**20
"""Bytes of scores held at a time."""
MOST_ROWS = 1024
"""Targets of a batch at most."""


def run(context: StageContext) -> dict[str, Any]:
    """Writes `soft_targets.safetensors` (see `FILE`).

    Returns:
        `temperature`, by which the teacher's scores were divided; `positions`, how many targets there are. Of these,
        `target_first`: the share for which the teacher scores the target highest; `target_listed`: the share for which
        it is among the K items; `target_share`: the mean share of the target; `entropy`: that of the shares in nats, in
        the mean. They tell how sure the teacher is of what it was trained on.

    Raises:
        UserError: if a score is not finite, or a file of the teacher does not fit.
    """
    settings, interactions = context.config.soft_targets, context.interactions
    sources = Sources(context.config, interactions, context.inputs, context.members)
    teacher = restore("ensemble", sources, Path(context.inputs["ensemble"]))
    assert isinstance(teacher, Restored), "an ensemble scores all items"
    prefixes = all_prefixes(interactions, teacher.max_len)
    settings = replace(settings, temperature=planned_temperature(context, teacher, len(prefixes)))
    arrays = computed_in_shards(context, settings, teacher, prefixes)
    save_file(arrays, context.folder / FILE, metadata={ID_MAP: interactions.ids.digest})
    targets_X = torch.from_numpy(interactions.items[prefixes.ends])
    assert arrays["items"].shape == (len(prefixes), settings.count)
    facts = {"temperature": settings.temperature, "positions": len(prefixes)}
    return {**facts, **certainty(arrays["items"], arrays["shares"], targets_X)}


def planned_temperature(context: StageContext, teacher: Restored, num_targets: int) -> float:
    """The configured temperature, or the calibrated one, which the plan beside the shards of an unfinished stage keeps.

    A run that resumes so divides by the very same number, also with another number of threads.

    Args:
        context: the stage's.
        teacher: scores all items.
        num_targets: how many targets the plan is for.

    Raises:
        UserError: if an earlier run's plan cannot be read.
    """
    path = context.checkpoints.folder / PLAN
    if path.is_file():
        try:
            return float(json.loads(path.read_text(encoding="utf-8"))["temperature"])
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}: not a readable plan ({error}); delete {path.parent} to compute all of it again"
            ) from error
    given = context.config.soft_targets.temperature
    found = calibrated_temperature(teacher, context.interactions, context.config) if given is None else given
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"num_rows": num_targets, "shard_size": SHARD, "temperature": found})
    return found


def computed_in_shards(
    context: StageContext, settings: SoftTargetsConfig, teacher: Restored, prefixes: Prefixes
) -> dict[str, Tensor]:
    """The arrays of all targets; those of finished shards are kept beside the stage's folder until it is complete.

    Args:
        context: the stage's.
        settings: how many items, and the temperature.
        teacher: scores all items.
        prefixes: what stands before each target.
    """
    interactions = context.interactions
    device = context.make_trainer(max_epochs=1).strategy.root_device
    spans = list(slices(len(prefixes), size=SHARD))
    meant = json.dumps([settings.count, settings.temperature, len(prefixes), SHARD, interactions.ids.digest])
    shards = Shares(context.checkpoints.folder, len(spans), hashlib.sha256(meant.encode()).hexdigest())
    (shards.folder / CLAIMS).touch()
    shards.remove_damaged()
    shards.continue_meter(context.meter)
    columns = (TextColumn("soft_targets · targets"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, transient=True) as progress:
        task = progress.add_task("", total=len(prefixes))

        def produce(number: int, aside: Path) -> dict[str, Any]:
            progress.update(task, completed=spans[number].start)
            items_XK, shares_XK = taught(teacher, interactions, prefixes, spans[number], settings, device)
            save_file({"items": items_XK, "shares": shares_XK}, aside / FILE)
            return context.meter.facts()

        shards.fill(produce, unfinished=context.folder.is_dir, wait_for_others=True)
    parts = [load_tensors(shards.path(number) / FILE) for number in range(len(spans))]
    return {name: torch.cat([part[name] for part in parts]) for name in ("items", "shares")}


@torch.inference_mode()
def taught(
    teacher: Restored,
    interactions: Interactions,
    prefixes: Prefixes,
    span: slice,
    settings: SoftTargetsConfig,
    device: torch.device,
) -> tuple[Tensor, Tensor]:
    """The teacher's items and their shares for some of the targets.

    Args:
        teacher: scores all items; it encodes users on the CPU.
        interactions: the data set.
        prefixes: what stands before each target.
        span: the targets, among all.
        settings: how many items, and the temperature.
        device: where items are scored.

    Returns:
        Items, int32, best first (of equal scores the lower id), and shares, float32, both `[X, K]`.

    Raises:
        UserError: if a score is not finite.
    """
    starts_X, ends_X = prefixes.starts[span], prefixes.ends[span]
    lengths_X = ends_X - starts_X
    items_XK = torch.empty(len(starts_X), settings.count, dtype=torch.int32)
    shares_XK = torch.empty(len(starts_X), settings.count)
    scores_of = scoring(teacher, device)
    output_IE = teacher.output_IE
    rows = min(MOST_ROWS, max(1, SCORE_BYTES // (len(output_IE) * output_IE.element_size())))
    # Neighbours in the order of lengths need little padding.
    order_X = np.argsort(lengths_X, kind="stable")
    for places in slices(len(order_X), size=rows):
        places_B = order_X[places]
        items_BL = torch.from_numpy(padded_ranges(interactions, starts_X[places_B], lengths_X[places_B]))
        user_BE = teacher.encode(items_BL, torch.from_numpy(lengths_X[places_B]))
        columns_BK, scores_BK = best_columns(scores_of(user_BE), settings.count)
        if not torch.isfinite(scores_BK).all():
            raise UserError("soft_targets: the teacher gave scores that are not finite; look at the ensemble's members")
        items_XK[places_B] = (columns_BK + 1).to("cpu", torch.int32)
        assert settings.temperature is not None
        shares_XK[places_B] = (scores_BK / settings.temperature).softmax(dim=1).to("cpu", torch.float32)
    return items_XK, shares_XK


def scoring(teacher: Restored, device: torch.device) -> Callable[[Tensor], Tensor]:
    """A function from user vectors on the CPU to the scores of all items `[B, I]` on the device.

    Args:
        teacher: scores all items.
        device: where items are scored; another than the CPU multiplies with the whole table.
    """
    if device.type == "cpu":
        return teacher.scores
    output_IE = teacher.output_IE.to(device)

    def product(user_BE: Tensor) -> Tensor:
        user_BE, table_IE = in_one_type(user_BE.to(device), output_IE)
        with full_precision():
            return user_BE @ table_IE[1:].T

    return product


def certainty(items_XK: Tensor, shares_XK: Tensor, targets_X: Tensor) -> dict[str, float]:
    """The metrics of the stage, which `run` explains; 0 where there is no target.

    Args:
        items_XK: the teacher's items.
        shares_XK: their shares.
        targets_X: what came next.
    """
    sums = dict.fromkeys(("target_first", "target_listed", "target_share", "entropy"), 0.0)
    for rows in slices(len(items_XK)):
        hit_XK = items_XK[rows] == targets_X[rows, None]
        shares = shares_XK[rows].double()
        sums["target_first"] += float(hit_XK[:, 0].sum())
        sums["target_listed"] += float(hit_XK.sum())
        sums["target_share"] += float((shares * hit_XK).sum())
        sums["entropy"] += float(torch.special.entr(shares).sum())
    return {name: value / max(1, len(items_XK)) for name, value in sums.items()}


def read_soft_targets(sources: Sources) -> SoftTargets:
    """What the stage has written, for a training.

    Args:
        sources: of the stage that trains.

    Raises:
        UserError: if the file is of other items or of other targets.
    """
    path = Path(sources.inputs["soft_targets"]) / FILE
    check_item_map(path, sources)
    arrays = load_tensors(path)
    is_target_N = sources.interactions.is_training_N
    is_target_N[sources.interactions.offsets[:-1]] = False
    rows = int(is_target_N.sum())
    if set(arrays) != {"items", "shares"} or any(len(each) != rows for each in arrays.values()):
        raise UserError(
            f"{path}: not the {rows} training targets of the data; delete {path.parent} to compute it again"
        )
    return SoftTargets(
        arrays["items"], arrays["shares"], torch.from_numpy(is_target_N), sources.config.soft_targets.weight
    )
