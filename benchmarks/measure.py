"""How both sides measure: memory above the imports', and batches scaled to an epoch."""

from __future__ import annotations

import json
import os
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tslrec.system.errors import UserError
from tslrec.system.meter import peak_memory_gib, reset_peak_memory


class MemoryAboveImports:
    """Resident memory since its creation, less what was resident then: make it once everything is imported.

    Raises:
        UserError: where the kernel does not say, or cannot start its high-water mark anew.
    """

    def __init__(self) -> None:
        if not os.access("/proc/self/clear_refs", os.W_OK):
            raise UserError("benchmarks: peak memory is read from /proc/self; run them on Linux")
        self.imports_gib = resident_gib()
        self.restart()

    def restart(self) -> None:
        """Forgets the peak so far; what the imports took stays the base."""
        reset_peak_memory()

    def peak_gib(self) -> float:
        return peak_memory_gib() - self.imports_gib


def resident_gib() -> float:
    """What this process holds in memory now, in GiB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 2**20
    raise UserError("benchmarks: /proc/self/status has no VmRSS; run them on Linux")


def scaled_epoch(batches: Sequence[tuple[float, int]], targets: int) -> dict[str, float]:
    """Seconds of an epoch of `targets` training targets, from timed batches of `(seconds, targets)`.

    Batches of ours differ in their number of targets, so what is compared is seconds per target. `median` is the
    headline: one batch that the machine was busy with something else for does not move it. `mean` (all seconds over
    all targets) is what an epoch really adds up to if nothing disturbed: where costs are skewed it lies above the
    median, and the whole epoch that is run as a control shows which of the two is right.
    """
    per_target = [seconds / count for seconds, count in batches]
    return {
        "median": statistics.median(per_target) * targets,
        "mean": sum(seconds for seconds, _ in batches) / sum(count for _, count in batches) * targets,
    }


def training_record(
    batches: Sequence[tuple[float, int]], warm_up: int, targets: int, control_seconds: float | None, peak_gib: float
) -> dict[str, Any]:
    """What a side reports of training; the first `warm_up` batches are not counted."""
    timed = batches[warm_up:]
    scaled = scaled_epoch(timed, targets)
    return {
        "targets": targets,
        "batches": [[round(seconds, 5), count] for seconds, count in timed],
        "epoch_seconds": scaled["median"],
        "epoch_seconds_mean": scaled["mean"],
        "control_seconds": control_seconds,
        "training_peak_gib": peak_gib,
    }


def evaluation_record(seconds: Sequence[float], users: int, peak_gib: float) -> dict[str, Any]:
    """What a side reports of evaluation."""
    return {
        "evaluations": [round(value, 4) for value in seconds],
        "evaluation_seconds": statistics.median(seconds),
        "evaluated_users": users,
        "evaluation_peak_gib": peak_gib,
    }


def print_record(record: dict[str, Any]) -> None:
    """One JSON line, the last of a side's output."""
    print(json.dumps(record, sort_keys=True, allow_nan=False), flush=True)
