"""A program's exit code, and how a process that was in a process group ends."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from support.checkout import PYTHONPATH
from tslrec.system.exits import EXIT_SIGNAL, EXIT_USER_ERROR

PROGRAM = """
import atexit, os, signal, sys
import torch.distributed as dist
from tslrec.system.errors import StoppedError, UserError
from tslrec.system.exits import run_program


class Thread:
    '''Aborts the process when the interpreter is torn down, as a thread of gloo may.'''

    def __del__(self, abort=os.abort):
        abort()


def main():
    dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())
    sys.torn_down = Thread()
    print("worked")
    {end}


atexit.register(lambda: print("group", dist.is_initialized()))
run_program(main)
"""


def ended(end: str) -> tuple[int, list[str]]:
    """Exit code and output of a program in a process group whose last line is `end`."""
    environment = {"PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(end=end)], env=environment, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout.splitlines()


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("pass", 0),
        # After a signal all processes stop together, after the same step.
        ("raise StoppedError('stopped', signal.SIGTERM)", EXIT_SIGNAL + signal.SIGTERM),
    ],
)
def test_a_process_that_ends_with_its_group_is_not_torn_down(end: str, code: int) -> None:
    assert ended(end) == (code, ["worked", "group False"])


def test_a_process_that_fails_alone_does_not_destroy_its_group() -> None:
    """Other processes may wait in a collective operation, so destroying the group could block for ever."""
    code, lines = ended("del sys.torn_down.__class__.__del__; raise UserError('wrong')")
    assert (code, lines) == (EXIT_USER_ERROR, ["worked", "group True"])
