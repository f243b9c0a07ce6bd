"""Writes a run's recommender into a folder of its own (see `tslrec.serving.folder`)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tslrec.serving.folder import CARD, ENCODER, FACTS, FORMAT, ITEM_TABLE, ITEMS
from tslrec.serving.model_card import model_card
from tslrec.serving.run_folder import FinishedRun, catalogue_of
from tslrec.settings.choices import MODEL_KEYS
from tslrec.stages.restored import ListGenerator, Restored
from tslrec.system.disk_errors import disk_fault
from tslrec.system.errors import UserError
from tslrec.system.files import describe, left_over, list_files, name_aside, sync, sync_tree, write_json, write_text

Extra = Callable[[Path, dict[str, Any], Restored], None]
"""Adds files (an ONNX graph, an index) to a folder in the making, and facts to its `recommender.json`."""


def export(run: FinishedRun, to: Path, *, titles: Path | None = None, extras: Sequence[Extra] = ()) -> dict[str, Any]:
    """Exports a run's recommender; the folder appears when it is complete.

    Args:
        run: the run.
        to: the folder, which must not exist.
        titles: a file of titles (columns `item_id` and `title`); None: those that the run knows.
        extras: add files to the folder.

    Returns:
        The content of `recommender.json`.

    Raises:
        UserError: if the folder exists or cannot be made, or the method needs its language model for each request.
    """
    refuse_existing(to)
    interactions = run.interactions()
    restored = run.restore(interactions)
    if run.members and not isinstance(restored, ListGenerator) and restored.backbone is None:
        raise UserError(
            f"{run.folder}: {run.result['method']} sums the scores of {len(run.members)} recommenders, and an exported "
            "folder holds one encoder; use the run itself"
        )
    if isinstance(restored, ListGenerator) or restored.backbone is None:
        reason = "has no encoder" if run.result["llm"] is None else "runs its language model for every user"
        raise UserError(
            f"{run.folder}: {run.result['method']} {reason}, so there is nothing smaller to export; use the run itself"
        )
    catalogue = catalogue_of(run, interactions, titles)
    with folder_aside(to) as aside:
        write_weights(restored, aside)
        catalogue.items.write_parquet(aside / ITEMS)
        facts = {
            **run.facts(),
            "format": FORMAT,
            "backbone": backbone_section(run),
            "max_len": restored.max_len,
            "hidden_size": restored.backbone.hidden_size,
            "vector_size": restored.output_IE.shape[1],
            "users": interactions.num_users,
            "items": interactions.num_items,
            "interactions": interactions.num_interactions,
            "exported": datetime.now(UTC).isoformat(timespec="seconds"),
            "tslrec": version("tslrec"),
        }
        for extra in extras:
            extra(aside, facts, restored)
        write_text(aside / CARD, model_card(facts, catalogue))
        facts["files"] = {name: describe(aside / name) for name in list_files(aside)}
        write_json(aside / FACTS, facts)
    return facts


def refuse_existing(to: Path) -> None:
    """Refuses the name of a folder that is there already, as anything.

    Raises:
        UserError: if it is.
    """
    if to.name in ("", "..") or os.path.lexists(to):
        raise UserError(f"{to}: exists already; name a new folder, or delete it")


@contextmanager
def folder_aside(to: Path) -> Iterator[Path]:
    """Yields a new folder beside `to`; at the end it is synced and renamed to `to`, or removed after an error.

    What killed processes left of the same folder is removed.

    Raises:
        UserError: if the disk is full, or the folder cannot be made there.
    """
    aside = name_aside(to.with_name(f".{to.name}"))
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        for left in left_over(to.with_name(f".{to.name}")):
            shutil.rmtree(left)
        aside.mkdir()
        yield aside
        sync_tree(aside)
        refuse_existing(to)
        aside.rename(to)
        sync(to.parent)
    except UserError:
        raise
    except Exception as error:
        if (fault := disk_fault(error, to, "make space, or name another folder")) is None:
            raise
        raise fault from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def backbone_section(run: FinishedRun) -> dict[str, Any]:
    """The section `model` as `build_backbone` reads it: `_target_` and the backbone's numbers."""
    return {key: value for key, value in run.config.model.items() if key not in MODEL_KEYS}


def write_weights(restored: Restored, folder: Path) -> None:
    """Writes the finished item table and the other weights.

    Args:
        restored: a recommender with a backbone.
        folder: an existing folder.

    Raises:
        UserError: if a number is not finite.
    """
    assert restored.backbone is not None
    table_ID = restored.backbone.item_embedding.table()
    weights = {name: value.contiguous() for name, value in restored.backbone.state_dict().items()}
    for name, value in {"item table": table_ID, **weights}.items():
        if not bool(torch.isfinite(value).all()):
            raise UserError(f"{name}: numbers that are not finite (NaN); train again before you export")
    save_file({"item_table": table_ID.contiguous()}, folder / ITEM_TABLE)
    save_file(weights, folder / ENCODER)
