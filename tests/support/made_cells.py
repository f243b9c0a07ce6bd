"""Writes cells with made-up results, in the files in which finished cells of the paper's grid are kept."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tslrec.evaluation.user_groups import degree_groups, metrics_of, user_groups
from tslrec.reports.paper.cells import DEGREES, CellResult, pack_ranks, write_cell

USERS, ITEMS = 400, 60
STAGES = {
    "base": ["backbone"],
    "ci": ["backbone", "preferences", "fusion"],
    "tslrec": ["backbone", "preferences", "sft", "augment", "fusion"],
    "ablation_own_embeddings": ["backbone", "own_embeddings", "fusion"],
    "e4srec": ["backbone", "e4srec"],
    "llamarec": ["backbone", "ranker"],
    "p5": ["item_index", "p5"],
    "pod": ["pod"],
    "ease": ["ease"],
    "ensemble": ["ensemble"],
    "distilled": ["ensemble", "soft_targets", "fusion"],
}
HITS = {
    "base": 0.2, "ci": 0.24, "tslrec": 0.4, "ablation_own_embeddings": 0.22,
    "e4srec": 0.1, "llamarec": 0.2, "p5": 0.1, "pod": 0.05, "ease": 0.1, "ensemble": 0.5, "distilled": 0.3,
}  # fmt: skip
"""By method, the share of users who have their target among the first ten, about."""


def make_cell(
    folder: Path,
    *,
    method: str,
    seed: int,
    data: str = "beauty",
    model: str = "sasrec",
    source: str | None = None,
    preset: str = "tuned",
    variant: str | None = None,
    validation: float = 0.05,
) -> CellResult:
    """Writes one cell of `USERS` users. The same users are easy for all methods."""
    draw = np.random.default_rng(seed)
    chance = np.random.default_rng(99).random(USERS) + draw.normal(0, 0.02, USERS)
    rank = np.where(chance < HITS[method], draw.integers(1, 11, USERS), draw.integers(11, 60, USERS)).astype(float)
    ranks = {"masked": rank, "unmasked": rank + 2}
    everyone = np.arange(USERS)
    metrics: dict[str, Any] = {f"test/{name}": value for name, value in metrics_of(ranks, everyone).items()}
    metrics |= {f"validation/{protocol}/NDCG@10": validation for protocol in ranks}
    of = model if source is None else f"{model}_from_{source}"
    name = f"{data}-{of}-{method}-{preset}{'' if variant is None else f'-{variant}'}-seed{seed}"
    section = {"number": 1}
    members = [
        {
            **{"words": word, "method": "base", "model": word, "source_model": word, "preset": preset, "seed": seed},
            "config": {"method": {"name": "base", "stages": STAGES["base"]}, "model": {"name": word}},
            "stages": {"backbone": stage_facts(f"backbone {word}", "backbone")},
        }
        for word in ("sasrec", "fmlp")
    ]
    content: dict[str, Any] = {
        **({"members": members} if "ensemble" in STAGES[method] else {}),
        "group": "Made up",
        "variant": variant,
        "command": f"python train.py data={data} model={model} method={method} preset={preset} seed={seed}",
        "data": data,
        "model": model,
        "source_model": source or model,
        "preset": preset,
        "method": method,
        "seed": seed,
        "llm": None if method in ("base", "ci") else "random weights",
        "metrics": metrics,
        "curve": [0.02 * (seed + 1), HITS[method] / 2, HITS[method] / 4],
        "config": {
            "method": {"name": method, "stages": STAGES[method]},
            "model": {"name": model},
            "source_model": None,
            "training": {"batch_size": 7},
            "preferences": {"num_clusters": 4},
            **dict.fromkeys(("fusion", "llm", "sft", "e4srec"), section),
        },
        "stages": {stage: stage_facts(f"{stage} {method} {seed}", stage) for stage in STAGES[method]},
        "threads": "1",
        "statistics": {"users": USERS, "items": ITEMS, "interactions": 4000, "density": 1 / 6, "average_length": 10.0},
        "collected": "2026-11-25T00:00:00+00:00",
        "commit": "0123456789ab",
        "tested_users": USERS,
        "by_activity": user_groups(ranks, everyone),
        "by_popularity": user_groups(ranks, everyone[::-1]),
    }
    arrays: dict[str, Any] = dict(pack_ranks(ranks))
    if method in ("ease", "ensemble", "distilled"):
        arrays[DEGREES] = degree_groups(everyone % 30)
    if method in ("ci", "tslrec"):
        arrays["clusters"] = draw.integers(0, 4, ITEMS).astype(np.int16)
        content["kmeans_again"] = [0.7, 0.8]
    if method == "tslrec":
        content["gates"] = [{"items": 6, "from": i, "to": i, "mean": i / 10, "deviation": 0.1} for i in range(10)]
        probe = {"item": "17", "nearest": ["<b>", "4", "5", "6", "7"], "cosines": [0.9, 0.8, 0.7, 0.6, 0.5]}
        content["neighbours"] = {
            "items": ITEMS, "nearest": 10, "explained": 0.6, "overlap": 0.5, "by_chance": 0.17,
            "same_cluster": 0.6, "own_same_cluster": 0.7, "probes": [probe],
        }  # fmt: skip
    return write_cell(folder, name, content, arrays)


def stage_facts(key: str, stage: str) -> dict[str, Any]:
    """What the manifest of a stage says, as a cell keeps it."""
    metrics = {"C1": 0.5, "C2": 0.3, "C3": 0.2} if stage == "augment" else {}
    return {
        "key": key,
        "version": 1,
        "wall_seconds": 123.4,
        "peak_memory_gib": 1.25,
        "machine": {"processor": "a processor"},
        "packages": {"torch": "2.13.0"},
        "created": "2026-11-25T00:00:00+00:00",
        "metrics": metrics,
    }


def make_cells(folder: Path) -> list[CellResult]:
    """Writes cells of Base, CI and TSLRec with two seeds each, and of an ablation with one."""
    cells = [make_cell(folder, method=method, seed=seed) for method in ("base", "ci", "tslrec") for seed in (0, 1)]
    return [*cells, make_cell(folder, method="ablation_own_embeddings", seed=0)]
