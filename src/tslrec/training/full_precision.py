"""Ranks in fp32, whatever precision trains: a finished recommender also computes in fp32, and must agree with them."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)

HALF = (torch.bfloat16, torch.float16)


def in_full_precision(module: Module) -> Module:
    """A module as it is, or a copy in fp32 of one whose weights have 16 bits (precision bf16-true and 16-true)."""
    if all(weights.dtype not in HALF for weights in module.parameters()):
        return module
    return copy.deepcopy(module).float()


@contextmanager
def computing_in_full_precision(device: torch.device) -> Iterator[None]:
    """While active, neither autocast (bf16-mixed, 16-mixed) nor a default of 16 bits makes numbers short.

    Args:
        device: of the computation.
    """
    default = torch.get_default_dtype()
    if default in HALF:
        torch.set_default_dtype(torch.float32)
    try:
        with torch.autocast(device.type, enabled=False):
            yield
    finally:
        torch.set_default_dtype(default)
