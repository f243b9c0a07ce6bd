"""What a stage cost and where it ran, for its manifest."""

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

from tslrec.allocator import return_freed_memory

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
    """Wall time and peak memory from its creation on, and of the earlier processes whose work it goes on with."""

    def __init__(self) -> None:
        # A trainer and its module refer to each other: the model of the stage before, a language model say, is there
        # until its cycle is looked for, and would lie beside the next one's.
        gc.collect()
        reset_peak_memory()
        self.began = time.perf_counter()
        self.earlier_seconds = 0.0
        self.earlier_peak = 0.0
        self.interruptions = 0

    def go_on(self, facts: Mapping[str, Any]) -> None:
        """Adds what an earlier process had spent when it wrote a checkpoint (its `facts`)."""
        self.earlier_seconds = facts["wall_seconds"]
        self.earlier_peak = facts["peak_memory_gib"]
        self.interruptions = facts["interruptions"] + 1

    def facts(self) -> dict[str, Any]:
        """Wall seconds, peak memory in GiB, how often it was interrupted, date, hardware and versions of packages."""
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
    """Starts the kernel's high-water mark of this process anew, where the kernel can (Linux)."""
    return_freed_memory()
    mark = Path("/proc/self/clear_refs")
    if mark.exists() and os.access(mark, os.W_OK):
        mark.write_text("5")


def peak_memory_gib() -> float:
    """The largest resident memory of this process since the last reset, imports included, in GiB."""
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**20
    import resource

    # macOS counts bytes, and cannot be reset: there it is the peak of the whole process.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**30


def processor() -> str:
    """The processor's model name, as far as the system tells."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
