"""Runs the steps of a part in a process of its own, and ends what takes longer than its budget."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpu_parts.bench import Step
from gpu_parts.record import FAILED, MEASURED, OUT_OF_TIME, Record

STEP, STARTED, RUNNING = "step", "started", "running"
"""A line of JSON with the key `step` tells how far a step is; its `ended` is one of the last two, or an end."""


@dataclass(frozen=True)
class Budgets:
    """How long steps may take.

    Attributes:
        until: when the whole run must have ended, in seconds since 1970; None: steps may take what they need, as in a
            rehearsal on a CPU.
        slack: multiplies the budget of each step, for a card or a processor that others use, too.
    """

    until: float | None
    slack: float = 1.0

    def allowed(self, step: Step) -> float:
        """Seconds that a step may take."""
        left = math.inf if self.until is None else max(0.0, self.until - time.time())
        return left if step.rest else min(step.seconds * self.slack, left)


def follow(
    command: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    part: str,
    steps: Sequence[Step],
    record: Record,
    budgets: Budgets,
) -> list[str]:
    """Runs a command that runs steps, until all of them have ended, it dies, or one is out of time.

    Args:
        command: prints lines of JSON about its steps; what else it prints is passed on.
        environment: of the process.
        log: takes its errors and warnings.
        part: the name of the part.
        steps: what it runs, in order.
        record: where figures go.
        budgets: of the steps.

    Returns:
        The names of the steps that have ended in any way; at least one.
    """
    with log.open("a", encoding="utf-8") as errors:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=errors, text=True, env=dict(environment), start_new_session=True
        )
        progress = Progress(part, process, {step.name: step for step in steps}, record, budgets)
        try:
            progress.read()
        finally:
            end_group(process)
    progress.close(process.wait())
    return progress.ended


def end_group(process: subprocess.Popen[str]) -> None:
    """Ends a process and all that it has started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


class Progress:
    """What a part's process has told so far.

    Args:
        part: see `follow`.
        process: with a pipe as its output.
        steps: what it runs, by name, in order.
        record: see `follow`.
        budgets: see `follow`.

    Attributes:
        ended: the names of the steps that have ended.
    """

    def __init__(
        self,
        part: str,
        process: subprocess.Popen[str],
        steps: dict[str, Step],
        record: Record,
        budgets: Budgets,
    ) -> None:
        self.part = part
        self.process = process
        self.steps = steps
        self.record = record
        self.budgets = budgets
        self.ended: list[str] = []
        self.running: str | None = None
        self.facts: dict[str, Any] = {}
        self.timer: threading.Timer | None = None
        self.expired_after: float | None = None

    def read(self) -> None:
        """Reads until the process closes its output."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if line.startswith(f'{{"{STEP}"'):
                self.take(json.loads(line))
            else:
                print(line, end="", flush=True)
        self.stop_timer()

    def take(self, message: dict[str, Any]) -> None:
        """Handles one line of JSON."""
        name = message.pop(STEP)
        if message["ended"] == STARTED:
            print(f"  {name}", flush=True)
            self.running, self.facts = name, message
            self.start_timer(self.steps[name])
            return
        self.facts = message
        self.record.put(self.part, name, message)
        if message["ended"] != RUNNING:
            self.stop_timer()
            self.ended.append(name)
            self.running = None
            if message["ended"] != MEASURED:
                print(f"    {message['ended']}: {message['why']}", flush=True)

    def start_timer(self, step: Step) -> None:
        if self.budgets.until is not None:
            seconds = self.budgets.allowed(step)
            self.timer = threading.Timer(seconds, self.expire, [seconds])
            self.timer.start()

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.cancel()

    def expire(self, seconds: float) -> None:
        """Ends the process of a step that is out of time; `read` then sees the end of its output."""
        self.expired_after = seconds
        end_group(self.process)

    def close(self, code: int) -> None:
        """Records the step that ran when the process ended before its work was done."""
        name = self.running or next((name for name in self.steps if name not in self.ended), None)
        if name is None:
            return
        ended, why = FAILED, f"the process ended with code {code}"
        if self.expired_after is not None:
            ended, why = OUT_OF_TIME, f"took longer than {self.expired_after:.0f} s"
        print(f"    {ended}: {why}", flush=True)
        self.record.put(self.part, name, {**self.facts, "ended": ended, "why": why})
        self.ended.append(name)
