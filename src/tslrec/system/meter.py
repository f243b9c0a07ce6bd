"""Measures what a stage cost (time, memory) and records where it ran, for the stage's manifest."""

from __future__ import annotations

import gc
import importlib.metadata
import os
import platform
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tslrec.system.memory import return_freed_memory

PACKAGES = (
    "tslrec",
    "torch",
    "lightning",
    "transformers",
    "peft",
    "scikit-learn",
    "numpy",
    "polars",
    "hydra-core",
)


class Meter:
    """Wall time and peak memory of a stage since the meter was made, and of earlier processes that were interrupted."""

    def __init__(self) -> None:
        # A trainer and its module refer to each other, so the model of the previous stage (perhaps a language model)
        # stays in memory until the garbage collector finds the cycle. Collect now, so that two models never coexist.
        gc.collect()
        reset_peak_memory()
        self.began = time.perf_counter()
        self.earlier_seconds = 0.0
        self.earlier_peak = 0.0
        self.interruptions = 0

    def continue_from(self, facts: Mapping[str, Any]) -> None:
        """Adds the cost of an earlier, interrupted process.

        Args:
            facts: that process's `facts()`, as its last checkpoint holds them.
        """
        self.earlier_seconds = facts["wall_seconds"]
        self.earlier_peak = facts["peak_memory_gib"]
        self.interruptions = facts["interruptions"] + 1

    def facts(self) -> dict[str, Any]:
        """Wall time (s), peak memory (GiB), number of interruptions, date, hardware and package versions."""
        return {
            "wall_seconds": round(self.earlier_seconds + time.perf_counter() - self.began, 3),
            "peak_memory_gib": round(max(self.earlier_peak, peak_memory_gib()), 3),
            "interruptions": self.interruptions,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": {
                "platform": platform.platform(),
                "processor": processor(),
                "cores": os.cpu_count(),
                "python": platform.python_version(),
            },
            "packages": {name: importlib.metadata.version(name) for name in PACKAGES},
        }


def reset_peak_memory() -> None:
    """Resets the kernel's record of this process's peak memory, where the kernel can (Linux)."""
    return_freed_memory()
    mark = Path("/proc/self/clear_refs")
    if mark.exists() and os.access(mark, os.W_OK):
        mark.write_text("5")


def peak_memory_gib() -> float:
    """Largest resident memory of this process since the last reset, in GiB; it includes imported modules."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**20
    import resource

    # macOS counts in bytes and has no reset, so there this is the peak since the process began.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**30


def processor() -> str:
    """Model name of the processor, as far as the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
