"""Measures what a stage cost (time, memory) and records where it ran, for the stage's manifest."""

from __future__ import annotations

import gc
import importlib.metadata
import os
import platform
import sys
import time
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from types import ModuleType
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


PROJECT = "tslrec"
"""This package, which can also be used from its sources without an installation."""


class Meter:
    """Wall time and peak memory of a stage since the meter was made, and of earlier processes that were interrupted.

    The memory of a GPU is that of this process's own device, and is measured only where CUDA is in use.
    """

    def __init__(self) -> None:
        # A trainer and its module refer to each other, so the model of the previous stage (perhaps a language model)
        # stays in memory until the garbage collector finds the cycle. Collect now, so that two models never coexist.
        gc.collect()
        reset_peak_memory()
        if (cuda := cuda_in_use()) is not None:
            cuda.reset_peak_memory_stats()
        self.began = time.perf_counter()
        self.earlier_seconds = 0.0
        self.earlier_peak = 0.0
        self.earlier_device_peak = 0.0
        self.interruptions = 0

    def continue_from(self, facts: Mapping[str, Any]) -> None:
        """Adds the cost of an earlier, interrupted process.

        Args:
            facts: that process's `facts()`, as its last checkpoint holds them.
        """
        self.earlier_seconds = facts["wall_seconds"]
        self.earlier_peak = facts["peak_memory_gib"]
        self.earlier_device_peak = facts.get("peak_device_memory_gib", 0.0)
        self.interruptions = facts["interruptions"] + 1

    def facts(self) -> dict[str, Any]:
        """Wall time (s), peak memory (GiB), number of interruptions, date, hardware and package versions.

        Where CUDA is in use also `peak_device_memory_gib`, the most that tensors held on this process's GPU, and the
        card in `machine`. The version of a package that is not installed is None.
        """
        return {
            "wall_seconds": round(self.earlier_seconds + time.perf_counter() - self.began, 3),
            "peak_memory_gib": round(max(self.earlier_peak, peak_memory_gib()), 3),
            **self.device_facts(),
            "interruptions": self.interruptions,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "machine": {
                "platform": platform.platform(),
                "processor": processor(),
                "cores": os.cpu_count(),
                "python": platform.python_version(),
                **card_facts(),
            },
            "packages": {name: package_version(name) for name in PACKAGES},
        }

    def device_facts(self) -> dict[str, float]:
        """The peak memory of this process's GPU; empty where none is in use, nor was in an earlier process."""
        cuda = cuda_in_use()
        now = 0.0 if cuda is None else cuda.max_memory_allocated() / 2**30
        peak = max(self.earlier_device_peak, now)
        return {"peak_device_memory_gib": round(peak, 3)} if cuda is not None or peak > 0 else {}


def cuda_in_use() -> ModuleType | None:
    """`torch.cuda`, if this process has begun to use it; asking does not begin it, nor does it import torch."""
    torch = sys.modules.get("torch")
    return torch.cuda if torch is not None and torch.cuda.is_initialized() else None


def card_facts() -> dict[str, Any]:
    """This process's GPU, its memory and the CUDA version; empty where no GPU is in use."""
    if (cuda := cuda_in_use()) is None:
        return {}
    card = cuda.get_device_properties(cuda.current_device())
    versions = sys.modules["torch"].version
    return {"card": card.name, "card_memory_gib": round(card.total_memory / 2**30, 1), "cuda": versions.cuda}


def package_version(name: str) -> str | None:
    """The version of a package; None if it is not installed.

    The project itself may run from its sources; its version is then the one in `pyproject.toml` beside them.
    """
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        declared = Path(__file__).parents[3] / "pyproject.toml"
        if name != PROJECT or not declared.is_file():
            return None
        return str(tomllib.loads(declared.read_text(encoding="utf-8"))["project"]["version"])


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
