"""The default for waiting threads: it reaches torch's OpenMP library, and a person's own environment wins."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from support.checkout import CHECKOUT
from tslrec.system.threads import SPIN_COUNT, VARIABLES, limit_spinning

linux = pytest.mark.skipif(sys.platform != "linux", reason="torch's OpenMP library is libgomp on Linux only")


def test_an_environment_without_such_variables_gets_the_default() -> None:
    environment = {"PATH": "/bin"}
    limit_spinning(environment)
    assert environment == {"PATH": "/bin", "GOMP_SPINCOUNT": str(SPIN_COUNT)}


@pytest.mark.parametrize("name", VARIABLES)
def test_an_environment_with_such_a_variable_is_not_changed(name: str) -> None:
    environment = {name: "1"}
    limit_spinning(environment)
    assert environment == {name: "1"}


def openmp_settings(code: str, **variables: str) -> str:
    """What libgomp prints when it is loaded by some code, in a process that has no variables of threads but these."""
    environment = {name: value for name, value in os.environ.items() if name not in VARIABLES}
    environment |= {"PYTHONPATH": str(CHECKOUT / "src"), "OMP_DISPLAY_ENV": "VERBOSE", **variables}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=CHECKOUT, env=environment, capture_output=True, text=True, check=True)
    return done.stderr


@linux
@pytest.mark.parametrize(
    "code",
    [
        "import train; import torch",
        # A verb that imports nothing, so that torch is loaded after it.
        "import tslrec.cli.main as cli\ntry: cli.main(['--help'])\nexcept SystemExit: pass\nimport torch",
    ],
    ids=["train.py", "tslrec"],
)
def test_the_entry_points_set_it_before_torch_is_loaded(code: str) -> None:
    assert f"GOMP_SPINCOUNT = '{SPIN_COUNT}'" in openmp_settings(code)
    assert "GOMP_SPINCOUNT = '4711'" in openmp_settings(code, GOMP_SPINCOUNT="4711")


@linux
def test_a_child_process_inherits_it() -> None:
    child = "import subprocess, sys, train; subprocess.run([sys.executable, '-c', 'import torch'], check=True)"
    assert f"GOMP_SPINCOUNT = '{SPIN_COUNT}'" in openmp_settings(child)
