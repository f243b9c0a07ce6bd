"""Starts and asks the processes of the sides (`card_worker.py`)."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PAUSE = 0.05
"""Seconds between two looks at whether an answer is there."""


class SideFailedError(Exception):
    """A side gave no record; the message says why."""


class Worker:
    """The process of one side, started with its first request and again after it was ended.

    Args:
        side: `tslrec`, `recbole` or `rectools`.
        device: `cuda`, or `cpu` in a rehearsal.
        packages: folder with the side's own packages, before all others; None: there are none.
        log: takes what the process prints.
    """

    def __init__(self, side: str, device: str, packages: Path | None, log: Path) -> None:
        self.side = side
        self.device = device
        self.packages = packages
        self.log = log
        self.process: subprocess.Popen[str] | None = None
        self.answers: queue.Queue[str] = queue.Queue()
        self.awaited = 0

    def send(self, request: dict[str, Any]) -> None:
        """Asks for something; `receive` waits for the answer."""
        if self.process is None:
            self.start()
        assert self.process is not None
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            # `receive` finds the end of its output, and says so.
            return
        finally:
            self.awaited += 1

    def ready(self, seconds: float) -> bool:
        """Waits for the answer to the last request, and says whether it is there."""
        until = time.perf_counter() + seconds
        while self.answers.qsize() < self.awaited and time.perf_counter() < until:
            if self.process is None or self.process.poll() is not None:
                break
            time.sleep(PAUSE)
        return self.answers.qsize() >= self.awaited

    def receive(self, seconds: float) -> dict[str, Any]:
        """The answer to the last request; those to earlier ones that nobody waited for are dropped.

        Raises:
            SideFailedError: if the side could not measure, died, or took longer; it is ended then.
        """
        until = time.perf_counter() + seconds
        try:
            while True:
                line = self.answers.get(timeout=max(0.1, until - time.perf_counter()))
                self.awaited -= 1
                if self.awaited == 0 or not line:
                    break
        except queue.Empty:
            self.end()
            raise SideFailedError(f"{self.side}: no answer within {seconds:.0f} s") from None
        if not line:
            self.end()
            raise SideFailedError(f"{self.side}: its process has ended; {self.log} says why")
        record: dict[str, Any] = json.loads(line)
        if "error" in record:
            raise SideFailedError(f"{self.side}: {record['error']}; {self.log} says more")
        return record

    def start(self) -> None:
        """Starts the process, which imports its packages meanwhile."""
        paths = [str(HERE.parent / "src"), str(HERE), os.environ.get("PYTHONPATH", "")]
        paths = [str(self.packages), *paths] if self.packages is not None else paths
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
        # Of the process before this one nothing may come any more.
        answers = self.answers = queue.Queue()
        self.awaited = 0
        with self.log.open("a", encoding="utf-8") as log:
            process = self.process = subprocess.Popen(
                [sys.executable, str(HERE / f"card_side_{self.side}.py"), "--device", self.device],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
            )

        def follow() -> None:
            assert process.stdout is not None
            for line in process.stdout:
                answers.put(line)
            answers.put("")

        threading.Thread(target=follow, daemon=True).start()

    def end(self) -> None:
        """Ends the process; the next request starts another one."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None
