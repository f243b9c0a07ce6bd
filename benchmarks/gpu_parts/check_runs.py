"""Runs of `train.py` as programs of their own, several side by side, and what their results have in common."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gpu_parts.bench import Bench
from tslrec.evaluation.user_ranks import RANKS
from tslrec.system.safetensors_io import load_tensors

ROOT = Path(__file__).resolve().parents[2]

SMALL = (
    "llm=tiny",
    "data.reader.num_users=60",
    "data.reader.num_items=40",
    "data.reader.num_categories=4",
    "preferences.num_clusters=4",
    "model.hidden_size=8",
    "training.max_epochs=2",
    "training.batch_size=16",
    "sft.batch_size=4",
)
"""Overrides with which all five stages take a few seconds and each training has a dozen steps and more."""

LOG = "run.log"
"""What a run printed, in its folder."""

KILLED_BY_ITSELF = ROOT / "tests" / "support" / "killed_run.py"
"""`train.py`, which kills itself at a step of one's choice."""


@dataclass(frozen=True)
class Kill:
    """Where a run kills itself, as `tests/support/killed_run.py` takes it.

    Attributes:
        pattern: the end of a checkpoint's path.
        step: the first optimizer step that counts.
    """

    pattern: str
    step: int


@dataclass(frozen=True)
class Chain:
    """A run, or one that is killed once and started again: the same command, one after the other.

    Attributes:
        name: of its folder.
        overrides: of `train.py`.
        kill: where the first attempt is killed; None: there is one attempt.
    """

    name: str
    overrides: tuple[str, ...]
    kill: Kill | None = None


@dataclass(frozen=True)
class Difference:
    """How far two results are apart.

    Attributes:
        arrays: number of arrays that both have.
        unequal: names of the arrays that differ in a bit.
        largest: the largest absolute difference of two numbers.
    """

    arrays: int
    unequal: tuple[str, ...]
    largest: float

    def sentence(self) -> str:
        """What was found, in words."""
        if not self.unequal:
            return f"all {self.arrays} arrays have the same bits"
        shown = ", ".join(self.unequal[:3]) + (", …" if len(self.unequal) > 3 else "")
        return f"{len(self.unequal)} of {self.arrays} arrays differ, by at most {self.largest:.3g}: {shown}"


def scratch(bench: Bench, name: str) -> Path:
    """An empty folder of a step; what an interrupted run left in it is gone."""
    folder = bench.folder / "check" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def environment(threads: int = 2) -> dict[str, str]:
    """Environment variables of a process: the package and the tests of this checkout, and no network."""
    folders = [str(ROOT / name) for name in ("src", "tests", "benchmarks")]
    paths = [*folders, *filter(None, [os.environ.get("PYTHONPATH")])]
    fixed = {"PYTHONPATH": os.pathsep.join(paths), "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
    return {**os.environ, **fixed, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads))}


def trainer_of(bench: Bench) -> str:
    """The trainer that puts a run on the benchmark's device."""
    return f"trainer={'gpu' if bench.on_card else 'cpu'}"


def run_together(bench: Bench, chains: Sequence[Chain], parent: Path) -> dict[str, str]:
    """Runs chains to their ends in folders of their own, `parent / NAME`: on a card side by side.

    Returns:
        By name of each chain that failed, or was not killed where it should have been: what happened.
    """
    with ThreadPoolExecutor(bench.sized(len(chains), 2)) as threads:
        problems = list(threads.map(lambda chain: run_chain(chain, parent), chains))
    return {chain.name: problem for chain, problem in zip(chains, problems, strict=True) if problem is not None}


def run_all(bench: Bench, chains: Sequence[Chain], parent: Path) -> None:
    """`run_together` where no chain may fail.

    Raises:
        RuntimeError: if one did.
    """
    problems = run_together(bench, chains, parent)
    if problems:
        raise RuntimeError("; ".join(problems.values()))


def run_chain(chain: Chain, parent: Path) -> str | None:
    """Runs a chain; returns what went wrong, or None."""
    folder = parent / chain.name
    folder.mkdir()
    if chain.kill is not None:
        first = [str(KILLED_BY_ITSELF), chain.kill.pattern, str(chain.kill.step), "after", *chain.overrides]
        code = run_program(first, folder)
        if code != -signal.SIGKILL:
            return f"{chain.name}: not killed at {chain.kill.pattern} but ended with code {code}: {last_line(folder)}"
    code = run_program([str(ROOT / "train.py"), *chain.overrides], folder)
    return None if code == 0 else f"{chain.name}: code {code}: {last_line(folder)}"


def run_program(arguments: Sequence[str], folder: Path) -> int:
    """Runs a Python program in a folder; what it prints goes to `run.log` there."""
    with (folder / LOG).open("a", encoding="utf-8") as log:
        return subprocess.run(
            [sys.executable, *arguments, f"cache={folder / 'cache'}"],
            cwd=folder,
            env=environment(),
            stdout=log,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode


def last_line(folder: Path) -> str:
    """The last line that a run has printed, for messages."""
    lines = (folder / LOG).read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else f"{folder / LOG} is empty"


def difference(one: Path, other: Path) -> Difference:
    """Compares all arrays in the results of two runs with the same settings.

    Args:
        one: the working directory of a run.
        other: that of the other one.

    Raises:
        RuntimeError: if they have results of different names, or no arrays at all.
    """
    arrays = arrays_of(one), arrays_of(other)
    if arrays[0].keys() != arrays[1].keys() or not arrays[0]:
        raise RuntimeError(f"{one.name} and {other.name} have other results: {sorted(arrays[0])}, {sorted(arrays[1])}")
    unequal, largest = [], 0.0
    for name, first in arrays[0].items():
        second = arrays[1][name]
        if torch.equal(bits(first), bits(second)):
            continue
        unequal.append(name)
        # A rank says little about how far weights are apart.
        if RANKS not in name:
            largest = max(largest, float((first.double() - second.double()).abs().max()))
    return Difference(len(arrays[0]), tuple(unequal), largest)


def arrays_of(folder: Path) -> dict[str, Tensor]:
    """Every array in the finished results of a run, by stage, file and name."""
    artifacts = folder / "artifacts"
    found: dict[str, Tensor] = {}
    for path in sorted(artifacts.rglob("*.safetensors")):
        place = path.relative_to(artifacts)
        if not any(part.endswith((".checkpoints", ".partial")) for part in place.parts):
            found |= {f"{place.as_posix()}/{name}": array for name, array in load_tensors(path).items()}
    return found


def bits(array: Tensor) -> Tensor:
    """The bytes of an array, which say of NaN and of zeros with a sign whether they are the same."""
    return array.contiguous().flatten().view(torch.uint8)


def result_of(folder: Path) -> dict[str, Any]:
    """The result of the only run in a folder, of the method that it was started for."""
    (path,) = (folder / "artifacts" / "runs").glob("*/result.json")
    result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["results"][-1]
    return result


def run_folder_of(folder: Path) -> Path:
    """The folder of the only run, `artifacts/runs/NAME`."""
    (path,) = (folder / "artifacts" / "runs").glob("*/result.json")
    return path.parent
