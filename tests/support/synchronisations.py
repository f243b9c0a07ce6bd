"""Counts the operations that would make the host wait for a GPU, on a CPU: what no machine without a GPU would show.

A GPU works through a queue. The host waits where Python needs a number that is on the device (`item`, `bool`,
`tolist`), where the shape of a result depends on the data (`nonzero`, an index by a boolean mask, `unique`), and where
a tensor is copied between the two, as `torch.where(mask, tensor, 0.0)` does with the number. Copies between the two
cannot be seen on a CPU; what makes them (`tolist` and `numpy` of a tensor, a Python number in `where`) mostly can.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tslrec.system import devices

WAITING = frozenset(
    {
        "_local_scalar_dense",
        "_unique",
        "_unique2",
        "bincount",
        "equal",
        "histc",
        "is_nonzero",
        "isin",
        "masked_select",
        "nonzero",
        "unique_consecutive",
        "unique_dim",
    }
)
"""Operations that always make the host wait on CUDA; `isin` because it is made of `unique` for all but small inputs."""


class Synchronisations(TorchDispatchMode):
    """While it is entered, records operations that would make the host wait.

    Attributes:
        found: how often each was called.
        launches: how many operations were called in all, views and allocations among them.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self.launches = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        self.launches += 1
        if name in WAITING or waits_by_its_arguments(name, args, kwargs):
            self.found[name] += 1
        return func(*args, **kwargs)

    @property
    def count(self) -> int:
        """How often the host would have waited."""
        return sum(self.found.values())


def waits_by_its_arguments(name: str, args: Any, kwargs: Any) -> bool:
    """Whether an operation that need not make the host wait does so because of what it is given."""
    if name in ("index", "index_put", "index_put_", "_index_put_impl_"):
        return any(isinstance(each, Tensor) and each.dtype in (torch.bool, torch.uint8) for each in args[1])
    if name == "repeat_interleave":
        return kwargs.get("output_size") is None
    if name == "where":
        # A Python number comes here as a tensor without dimensions.
        return any(isinstance(each, Tensor) and each.ndim == 0 for each in args[1:]) and args[0].ndim > 0
    return False


@contextmanager
def reading_counted(patched: pytest.MonkeyPatch) -> Iterator[Synchronisations]:
    """Counts also `tolist`, `numpy` and `cpu` of a tensor, each of which would be a copy to the host."""
    found = Synchronisations()
    depth = 0

    def counted(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: Tensor, *args: Any, **kwargs: Any) -> Any:
            nonlocal depth
            if depth == 0:
                found.found[name] += 1
            depth += 1
            try:
                return original(self, *args, **kwargs)
            finally:
                depth -= 1

        return call

    with patched.context() as context:
        for name in ("tolist", "numpy", "cpu"):
            context.setattr(Tensor, name, counted(name, getattr(Tensor, name)))
        with found:
            yield found


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Takes the code that runs on a GPU, on the CPU."""
    monkeypatch.setattr(devices, "queues_work", lambda device: True)
