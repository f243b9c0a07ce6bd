"""The rates that steps of the part `llm13b` measure, kept in a file: `figure3`, which scales them, may run later."""

from __future__ import annotations

import json
from typing import Any

from gpu_parts.bench import Bench

KEPT = "llm13b.json"
"""File in the bench's folder with the rates that `figure3` scales."""


def keep(bench: Bench, name: str, value: Any) -> None:
    """Keeps a number for `figure3`, which may run in another process."""
    from tslrec.system.files import write_json

    path = bench.folder / KEPT
    write_json(path, {**kept(bench), name: value})


def kept(bench: Bench) -> dict[str, Any]:
    """What `keep` has kept."""
    path = bench.folder / KEPT
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def of_kind(rates: dict[str, Any], kind: str) -> dict[str, Any]:
    """The kept rates of one kind, without those of longer rows or gradient checkpointing, by the examples per step."""
    found = {name.partition("/")[2]: value for name, value in rates.items() if name.startswith(f"{kind}/")}
    return {name: value for name, value in found.items() if name.count("_") == 1}


def chosen(rates: dict[str, Any], kind: str, measure: str, way: str) -> tuple[int, float]:
    """Examples per step, and the rate: of the smallest batch, the default one, or of the fastest."""
    by_size = {int(name.partition("_")[2]): float(value[measure]) for name, value in of_kind(rates, kind).items()}
    size = min(by_size) if way == "default" else max(by_size, key=lambda each: by_size[each])
    return size, by_size[size]
