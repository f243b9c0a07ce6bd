"""From a finished run to its cell: what the tables and figures need of it, and nothing of the data themselves."""

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

from tslrec import interactions_file
from tslrec.artifacts import KEY_LENGTH, LOG_FILE, Artifact, read_manifest, verify
from tslrec.check import MADE_BY
from tslrec.config import MONITORED
from tslrec.errors import UserError
from tslrec.interactions import Interactions
from tslrec.paper.cells import CellResult, pack_ranks, write_cell
from tslrec.paper.grid import Cell
from tslrec.paper.groups import item_groups, user_groups
from tslrec.paper.neighbours import neighbours
from tslrec.preferences import cluster_items
from tslrec.table1 import table1_row
from tslrec.user_ranks import RANKS

AGAIN = 2
"""How often k-means is run anew on the same embeddings, to tell its own chance from the embeddings'."""

ELSEWHERE = ("artifacts", "cache")
"""Keys of a configuration that say where things lie, not what they are."""


def collect(cell: Cell, result: Mapping[str, Any], threads: str | None, root: Path, folder: Path) -> CellResult:
    """Writes the cell of a run.

    Args:
        cell: what was run.
        result: the method's part of its `result.json`.
        threads: what `OMP_NUM_THREADS` was.
        root: the artifacts folder.
        folder: of the cells.

    Raises:
        UserError: if an artifact of the run is gone or damaged.
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
        "metrics": result["metrics"],
        "curve": curve(last.folder, result["config"]["training"]["selection"]),
        "config": {name: value for name, value in result["config"].items() if name not in ELSEWHERE},
        "stages": {name: facts_of(artifact) for name, artifact in stages.items()},
        "threads": threads,
        "statistics": table1_row(interactions),
        "collected": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        **parts(interactions, ranks),
    }
    arrays: dict[str, NDArray[Any]] = dict(pack_ranks(ranks))
    popularity_I = popularity(interactions)
    gates = last.folder / "gates.safetensors"
    if gates.is_file():
        content["gates"] = item_groups(load_file(gates)["id_shares"][1:], popularity_I[1:])
    clusters_I = None
    if "preferences" in stages:
        clusters_I = load_file(stages["preferences"].folder / "preferences.safetensors")["clusters"]
        arrays["clusters"] = clusters_I[1:].astype(np.int16)
        content["kmeans_again"] = again(stages, clusters_I, result["config"]["preferences"])
    maker = next((name for name in MADE_BY["knowledge_IH"] if name in stages), None)
    if maker is not None:
        from tslrec.knowledge.store import KnowledgeStore
        from tslrec.knowledge.table_file import read_knowledge

        made = stages[maker].folder
        table = KnowledgeStore.open(made).table() if maker == "augment" else read_knowledge(made)
        knowledge_IH = table[0 : len(table)].numpy()
        content["neighbours"] = neighbours(
            knowledge_IH, own_embeddings(stages), clusters_I, popularity_I, interactions.ids.items
        )
    return write_cell(folder, cell.name, content, arrays)


def open_artifact(folder: Path) -> Artifact:
    manifest = read_manifest(folder)
    verify(folder, manifest)
    return Artifact(folder, manifest, reused=True)


def open_data(artifact: Artifact, root: Path, name: str) -> Interactions:
    """The data set that a result was made from."""
    key = artifact.manifest["inputs"]["data"]
    folder = next((root / "data").glob(f"*-{key[:KEY_LENGTH]}"), None)
    if folder is None:
        raise UserError(f"{root / 'data'}: the data set of {artifact.folder} is gone; run its command again")
    return interactions_file.load(folder, name)


def facts_of(artifact: Artifact) -> dict[str, Any]:
    """What a stage cost, where and with what, and what it says of itself."""
    kept = ("key", "version", "seed", "wall_seconds", "peak_memory_gib", "interruptions", "processes", "created",
            "machine", "packages", "metrics")  # fmt: skip
    return {name: artifact.manifest[name] for name in kept if name in artifact.manifest}


def curve(folder: Path, selection: str) -> list[float]:
    """The validation NDCG@10 by which a recommender was selected, of each epoch."""
    name = MONITORED.format(protocol=selection)
    with (folder / LOG_FILE).open(encoding="utf-8", newline="") as lines:
        return [round(float(row[name]), 6) for row in csv.DictReader(lines) if row.get(name)]


def popularity(interactions: Interactions) -> NDArray[np.int64]:
    """How often each item occurs in the training parts, `[I + 1]`."""
    return np.bincount(interactions.items[interactions.trained], minlength=interactions.num_items + 1)


def parts(interactions: Interactions, ranks: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Metrics of users by their activity (all their interactions), and by how popular their test item is."""
    users_T = ranks["users"]
    targets_T = interactions.items[interactions.offsets[users_T + 1] - 1]
    return {
        "tested_users": len(users_T),
        "by_activity": user_groups(ranks, interactions.lengths[users_T]),
        "by_popularity": user_groups(ranks, popularity(interactions)[targets_T]),
    }


def own_embeddings(stages: Mapping[str, Artifact]) -> NDArray[Any]:
    return load_file(stages["backbone"].folder / "item_embeddings.safetensors")["item_embeddings"]


def again(stages: Mapping[str, Artifact], clusters_I: NDArray[Any], numbers: Mapping[str, Any]) -> list[float]:
    """Adjusted Rand index of the clusters with those of k-means by other seeds on the same embeddings."""
    from sklearn.metrics import adjusted_rand_score

    own_ID, seed = own_embeddings(stages), int(stages["preferences"].manifest["seed"])
    how = {name: numbers[name] for name in ("num_clusters", "num_starts")}
    others = [cluster_items(own_ID, **how, seed=seed + 1 + i)[0] for i in range(AGAIN)]
    return [float(adjusted_rand_score(clusters_I[1:], other_I[1:])) for other_I in others]


def commit() -> str | None:
    """The commit of this code, `+` where it was changed since; None where it is not in a repository."""
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
