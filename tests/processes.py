"""Runs a script as several processes that find each other, as a cluster's launcher would."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

TIMEOUT_SECONDS = 240


def start_together(script: str, *arguments: str, processes: int = 2) -> list[subprocess.Popen[str]]:
    """Starts one of the scripts beside this file as the processes of a job, with a thread each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    return [
        subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name(script)), *arguments],
            env={
                **os.environ,
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
    """The same; all of them must end well."""
    started = start_together(script, *arguments, processes=processes)
    try:
        said = [process.communicate(timeout=TIMEOUT_SECONDS)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0] * processes, "\n".join(said)
