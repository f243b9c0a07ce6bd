"""Two processes that run `tslrec recommend` side by side, watched from outside: their memory, and who computed what."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from tslrec.system.errors import UserError

SOURCES = Path(__file__).resolve().parent.parent / "src"
POLL_SECONDS = 0.02


@dataclass
class Job:
    """Two processes that run the same command, watched from outside.

    Attributes:
        command: of each process.
        parts: the folder of the shards.
        peaks: the largest VmHWM of each process that was seen, in GiB, by process id.
        shards: of each shard that was seen, its folder's inode and the process that computed it.
    """

    command: list[str]
    parts: Path
    processes: list[subprocess.Popen[str]] = field(default_factory=list)
    peaks: dict[int, float] = field(default_factory=dict)
    shards: dict[str, set[tuple[int, int]]] = field(default_factory=dict)
    began: float = 0.0

    def start(self) -> None:
        self.began = time.perf_counter()
        self.processes = [
            subprocess.Popen(
                self.command,
                # As torchrun: one thread each, unless the caller says otherwise.
                env={
                    "OMP_NUM_THREADS": "1",
                    **os.environ,
                    "PYTHONPATH": str(SOURCES),
                    "RANK": str(rank),
                    "WORLD_SIZE": "2",
                },
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            for rank in range(2)
        ]

    def watch(self) -> bool:
        """Whether a process still runs; looks at their memory and at the shards."""
        for process in self.processes:
            if (peak := peak_gib(process.pid)) is not None:
                self.peaks[process.pid] = peak
        for path in self.parts.glob("shard-*"):
            try:
                inode = path.stat().st_ino
                if any(inode == known for known, _ in self.shards.get(path.name, ())):
                    continue
                computed_by = int(json.loads((path / "manifest.json").read_text())["process"])
            except FileNotFoundError:
                # Rank 0 has joined the shards, and deletes them.
                continue
            self.shards.setdefault(path.name, set()).add((inode, computed_by))
        time.sleep(POLL_SECONDS)
        return any(process.poll() is None for process in self.processes)

    def kill(self) -> None:
        """SIGKILL to both."""
        for process in self.processes:
            process.kill()
        self.finish(-signal.SIGKILL)

    def finish(self, code: int) -> float:
        """Waits for the end; returns the seconds since the start.

        Raises:
            UserError: if a process ended with another code.
        """
        for process in self.processes:
            said = process.communicate()[0]
            if process.returncode != code:
                raise UserError(f"benchmarks/recommend.py: a process ended with {process.returncode}: {said}")
        return time.perf_counter() - self.began


def peak_gib(pid: int) -> float | None:
    """VmHWM of a process; None if it has ended."""
    try:
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 2**20
    except (FileNotFoundError, ProcessLookupError):
        pass
    return None
