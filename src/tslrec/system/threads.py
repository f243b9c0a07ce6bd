"""Limits how long waiting OpenMP threads spin, so that a training is usable on a machine that does other work too.

PyTorch for Linux brings GNU's OpenMP library (libgomp). A thread of libgomp that has finished its share of an operation
spins, which keeps its core busy, until the next operation begins; after 300,000 spins it sleeps. If another process
uses a core, a spinning thread takes the time of a thread that has work to do: beside two trainings of one thread each,
the backbone of `make run` took 597 s instead of 14. How long a spin takes depends on the processor: on an AMD EPYC,
300,000 of them took 7 ms, which is longer than most operations of a training step.

Fewer spins let the waiting thread sleep earlier, at the price of waking it up more often. The results of a training
stay the same to the bit. `benchmarks/shared_cores.py` measures both sides of the choice.
"""

from __future__ import annotations

import os
from collections.abc import MutableMapping

SPIN_COUNT = 1_000
"""Spins before a waiting thread sleeps; libgomp's own default is 300,000.

On two cores the backbone of the quickstart takes 13 s with it, and 19 s with libgomp's default; beside two busy
processes 22 s and 60 s (docs/research/threads.md, which has single steps too). Steps with 10,000 spins are four times
as long beside a busy process as alone. `OMP_WAIT_POLICY=PASSIVE`, which does not spin, is faster beside it and slower
alone.
"""

VARIABLES = ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY")
"""Environment variables that decide how threads wait."""


def limit_spinning(environment: MutableMapping[str, str] = os.environ) -> None:
    """Sets `GOMP_SPINCOUNT` to `SPIN_COUNT`; changes nothing if the environment has any of `VARIABLES` already.

    libgomp reads the variable once, when it is loaded. So this must be called before torch or scikit-learn is
    imported. Child processes inherit the setting. Other OpenMP libraries, such as macOS's, ignore it.

    Args:
        environment: what is changed.
    """
    if not any(name in environment for name in VARIABLES):
        environment["GOMP_SPINCOUNT"] = str(SPIN_COUNT)
