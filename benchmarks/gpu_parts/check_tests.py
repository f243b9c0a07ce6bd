"""The tests whose truth must hold on a card, run on it by pytest in a process of its own."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from gpu_parts.bench import Bench, NotMeasuredError
from gpu_parts.check_runs import ROOT, environment, scratch

FILES = (
    "tests/models/backbones",
    "tests/models/fusions",
    "tests/evaluation/test_ranking.py",
    "tests/evaluation/test_best_items.py",
    "tests/training/test_losses.py",
    "tests/training/test_sampled_softmax.py",
    "tests/training/test_target_mix.py",
    "tests/stages/sft/test_sft_model.py",
)
"""What holds tests with the fixture `device`."""

REHEARSED = ("tests/evaluation/test_ranking.py",)
"""The selection of a rehearsal: `make test` runs them all on the CPU in any case."""

TOLD = 20
"""Failed tests that are named."""

WORKERS = 4
"""Processes of pytest-xdist on the card. Most of the time goes into starting kernels, so several share it well."""


@dataclass(frozen=True)
class Counts:
    """What a run of pytest said.

    Attributes:
        passed: number of tests.
        failed: names of the tests that failed or broke down.
        skipped: number of tests.
    """

    passed: int
    failed: tuple[str, ...]
    skipped: int


def check_tests(bench: Bench) -> None:
    """Runs the tests on the card.

    Raises:
        NotMeasuredError: without pytest or hypothesis.
        RuntimeError: if a test fails, or pytest ends before it has run them.
    """
    absent = [name for name in ("pytest", "hypothesis") if importlib.util.find_spec(name) is None]
    if absent:
        raise NotMeasuredError(f"{' and '.join(absent)} missing: pip install 'tslrec[dev]'")
    folder = scratch(bench, "tests")
    report, log = folder / "report.xml", folder / "tests.log"
    command = [sys.executable, "-m", "pytest", *bench.sized(FILES, REHEARSED), f"--device={bench.device_name}"]
    command += ["-q", "-p", "no:cacheprovider", f"--junitxml={report}", f"--basetemp={folder / 'temporary'}"]
    if bench.on_card and importlib.util.find_spec("xdist") is not None:
        command += ["-n", str(WORKERS)]
    with log.open("w", encoding="utf-8") as out:
        ended = subprocess.run(command, cwd=ROOT, env=environment(), stdout=out, stderr=subprocess.STDOUT, check=False)
    if not report.is_file():
        raise RuntimeError(f"pytest ended with code {ended.returncode} before it ran a test; {log} says why")
    counts = read_report(report)
    bench.figure("passed", counts.passed, "count")
    bench.figure("failed", len(counts.failed), "count")
    bench.figure("skipped", counts.skipped, "count")
    for name in counts.failed[:TOLD]:
        bench.say(f"failed: {name}")
    if counts.failed or ended.returncode != 0:
        raise RuntimeError(f"pytest ended with code {ended.returncode}, {len(counts.failed)} failed; {log} says why")
    if counts.passed == 0:
        raise RuntimeError(f"no test ran; {log} says why")


def read_report(path: Path) -> Counts:
    """Reads a report of `pytest --junitxml`."""
    passed, failed, skipped = 0, [], 0
    for case in ElementTree.parse(path).getroot().iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            failed.append(f"{case.get('classname')}::{case.get('name')}")
        elif case.find("skipped") is not None:
            skipped += 1
        else:
            passed += 1
    return Counts(passed, tuple(failed), skipped)
