"""Turns a finished run into a cell: what tables and figures need, without any of the raw data.

Shapes: I items, H width of the knowledge, N interactions, T tested users, D width of the item embedding.
"""

from __future__ import annotations

import csv
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file

from tslrec.data import parquet as interactions_file
from tslrec.data.interactions import Interactions
from tslrec.data.statistics import table1_row
from tslrec.evaluation.neighbours import neighbours
from tslrec.evaluation.user_groups import degree_groups, item_groups, metrics_of, user_groups
from tslrec.evaluation.user_ranks import RANKS
from tslrec.knowledge.preferences import cluster_items
from tslrec.knowledge.single_file import knowledge_table
from tslrec.pipeline.artifacts import Artifact
from tslrec.pipeline.result_members import members_of
from tslrec.reports.paper.cells import DEGREES, CellResult, pack_ranks, write_cell
from tslrec.reports.paper.grid import Cell
from tslrec.settings.metrics import MONITORED
from tslrec.stages.outputs import GATES, clusters, read_item_embeddings
from tslrec.stages.registry import makers_of
from tslrec.system.errors import UserError
from tslrec.system.manifests import KEY_LENGTH, LOG_FILE, read_manifest, verify

KMEANS_REPEATS = 2
"""Further k-means runs on the same embeddings: they separate k-means' own randomness from that of the embeddings."""

LOCATION_KEYS = ("artifacts", "cache")
"""Keys of the configuration that name folders of one machine; a cell leaves them out."""


def collect(cell: Cell, result: Mapping[str, Any], threads: str | None, root: Path, folder: Path) -> CellResult:
    """Writes the cell of a finished run.

    Args:
        cell: the cell of the grid that was run.
        result: the method's entry in the run's `result.json`.
        threads: value of `OMP_NUM_THREADS` in the run; None: it was not set.
        root: the artifacts folder.
        folder: the folder of the cells.

    Raises:
        UserError: if an artifact of the run is missing or damaged.
    """
    stages = {name: open_artifact(Path(stage["folder"])) for name, stage in result["stages"].items()}
    last = stages[result["config"]["method"]["stages"][-1]]
    interactions = open_data(last, root, result["data"])
    ranks = load_file(last.folder / RANKS)
    content: dict[str, Any] = {
        "group": cell.group,
        "variant": cell.variant,
        "command": cell.command,
        **{name: result[name] for name in ("data", "model", "source_model", "preset", "method", "seed", "llm")},
        "content": result.get("content"),
        "metrics": with_paper_metrics(result["metrics"], ranks),
        "curve": curve(last.folder, result["config"]["training"]["selection"]),
        "config": {name: value for name, value in result["config"].items() if name not in LOCATION_KEYS},
        "stages": {name: facts_of(artifact) for name, artifact in stages.items()},
        "threads": threads,
        "statistics": table1_row(interactions),
        "collected": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        **group_metrics(interactions, ranks),
    }
    if (titles := result.get("titles")) is not None:
        content["titles"] = {name: value for name, value in titles.items() if name != "folder"}
    if members := members_of(result):
        content["members"] = [member_content(member) for member in members]
    popularity_I = popularity(interactions)
    targets_T = interactions.items[interactions.offsets[ranks["users"] + 1] - 1]
    arrays: dict[str, NDArray[Any]] = {**pack_ranks(ranks), DEGREES: degree_groups(popularity_I[targets_T])}
    if (ranking := result.get("ranking")) is not None:
        content["ranking"] = ranking
    gates = last.folder / GATES
    if gates.is_file():
        content["gates"] = item_groups(load_file(gates)["id_shares"][1:], popularity_I[1:])
    clusters_I = None
    if "preferences" in stages:
        clusters_I = clusters(stages["preferences"].folder).numpy()
        arrays["clusters"] = clusters_I[1:].astype(np.int16)
        content["kmeans_again"] = kmeans_agreement(stages, clusters_I, result["config"]["preferences"])
    maker = next((stage.name for stage in makers_of("knowledge_IH") if stage.name in stages), None)
    if maker is not None and "backbone" in stages:
        table = knowledge_table(stages[maker].folder)
        knowledge_IH = table[0 : len(table)].numpy()
        content["neighbours"] = neighbours(
            knowledge_IH, own_embeddings(stages), clusters_I, popularity_I, interactions.ids.items
        )
    return write_cell(folder, cell.name, content, arrays)


def member_content(member: Mapping[str, Any]) -> dict[str, Any]:
    """What a cell holds of a member of its run: which run it is, and its cost.

    Args:
        member: an entry of the members of a result.
    """
    kept = ("words", "method", "model", "source_model", "preset", "seed", "llm", "metrics")
    return {
        **{name: member[name] for name in kept},
        "config": {name: value for name, value in member["config"].items() if name not in LOCATION_KEYS},
        "stages": {name: facts_of(open_artifact(Path(stage["folder"]))) for name, stage in member["stages"].items()},
    }


def open_artifact(folder: Path) -> Artifact:
    """The verified artifact of a folder.

    Raises:
        UserError: if it is missing or damaged.
    """
    manifest = read_manifest(folder)
    verify(folder, manifest)
    return Artifact(folder, manifest, reused=True)


def open_data(artifact: Artifact, root: Path, name: str) -> Interactions:
    """The data set that a result was made from.

    Raises:
        UserError: if its artifact is missing.
    """
    key = artifact.manifest["inputs"]["data"]
    folder = next((root / "data").glob(f"*-{key[:KEY_LENGTH]}"), None)
    if folder is None:
        raise UserError(f"{root / 'data'}: the data set of {artifact.folder} is missing; run its command again")
    return interactions_file.load(folder, name)


def facts_of(artifact: Artifact) -> dict[str, Any]:
    """The facts of a stage for the cell: cost, machine, package versions, metrics."""
    kept = ("key", "version", "seed", "wall_seconds", "peak_memory_gib", "peak_device_memory_gib", "interruptions",
            "processes", "created", "machine", "trainer", "packages", "metrics")  # fmt: skip
    return {name: artifact.manifest[name] for name in kept if name in artifact.manifest}


def curve(folder: Path, selection: str) -> list[float]:
    """The validation NDCG@10 of each epoch, by the protocol that selects the weights; none of what trains nothing."""
    name = MONITORED.format(protocol=selection)
    if not (folder / LOG_FILE).is_file():
        return []
    with (folder / LOG_FILE).open(encoding="utf-8", newline="") as lines:
        return [round(float(row[name]), 6) for row in csv.DictReader(lines) if row.get(name)]


def popularity(interactions: Interactions) -> NDArray[np.int64]:
    """How often each item occurs in the training parts, `[I + 1]`."""
    return np.bincount(interactions.items[interactions.is_training_N], minlength=interactions.num_items + 1)


def group_metrics(interactions: Interactions, ranks: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Metrics per group of tested users: by their number of interactions, and by the popularity of their test item."""
    users_T = ranks["users"]
    targets_T = interactions.items[interactions.offsets[users_T + 1] - 1]
    return {
        "tested_users": len(users_T),
        "by_activity": user_groups(ranks, interactions.lengths[users_T]),
        "by_popularity": user_groups(ranks, popularity(interactions)[targets_T]),
    }


def with_paper_metrics(metrics: Mapping[str, Any], ranks: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """A run's metrics, and those of the paper's tables that it was not asked for, which follow from the ranks."""
    everyone = np.arange(len(ranks["users"]))
    paper = {f"test/{name}": value for name, value in metrics_of(ranks, everyone).items()}
    return {**metrics, **{name: value for name, value in paper.items() if name not in metrics}}


def own_embeddings(stages: Mapping[str, Artifact]) -> NDArray[Any]:
    """The item embeddings of the stage-1 backbone, `[I + 1, D]`."""
    return read_item_embeddings(stages["backbone"].folder).numpy()


def kmeans_agreement(
    stages: Mapping[str, Artifact], clusters_I: NDArray[Any], numbers: Mapping[str, Any]
) -> list[float]:
    """Adjusted Rand index between the clusters and those of k-means with other seeds on the same embeddings."""
    from sklearn.metrics import adjusted_rand_score

    own_ID, seed = own_embeddings(stages), int(stages["preferences"].manifest["seed"])
    how = {name: numbers[name] for name in ("num_clusters", "num_starts")}
    others = [cluster_items(own_ID, **how, seed=seed + 1 + i)[0] for i in range(KMEANS_REPEATS)]
    return [float(adjusted_rand_score(clusters_I[1:], other_I[1:])) for other_I in others]


def commit() -> str | None:
    """The commit of this code, followed by `+` if the working tree has changes; None outside a repository."""
    here = Path(__file__).resolve().parent
    try:
        found = subprocess.run(
            ["git", "describe", "--always", "--abbrev=12", "--dirty=+"],
            cwd=here,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return found.stdout.strip()
