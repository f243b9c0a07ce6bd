"""Runs a script of this folder as the processes of one job, as the launcher of a cluster would."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from support.checkout import PYTHONPATH
from support.waiting import HANG_SECONDS


def start_together(script: str, *arguments: str, processes: int = 2) -> list[subprocess.Popen[str]]:
    """Starts a script of this folder as the processes of a job on this machine, each with one thread."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name(script)), *arguments],
            env={
                **os.environ,
                "PYTHONPATH": PYTHONPATH,
                "OMP_NUM_THREADS": "1",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "NODE_RANK": "0",
                "LOCAL_RANK": str(rank),
                "WORLD_SIZE": str(processes),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(processes)
    ]


def run_together(script: str, *arguments: str, processes: int = 2) -> None:
    """Runs a script of this folder as the processes of a job to their end; all must exit with code 0."""
    started = start_together(script, *arguments, processes=processes)
    try:
        outputs = [process.communicate(timeout=HANG_SECONDS)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0] * processes, "\n".join(outputs)
