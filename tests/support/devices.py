"""Tests that run on a device of choice: `pytest --device cuda`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)

TOLERANCE: Mapping[str, tuple[float | None, float | None]] = {"cpu": (None, None), "cuda": (1e-4, 5e-5)}
"""Relative and absolute tolerance of `assert_close`, by type of device; None: PyTorch's own."""


def assert_close(found: Tensor, expected: Tensor) -> None:
    """Asserts that two ways to compute the same float32 numbers agree, on the device of the first.

    For numbers of about 1 that are sums of at most a few hundred products. A GPU chooses another kernel, and so another
    order of the sum, for each shape, so it is allowed more than a CPU.
    """
    rtol, atol = TOLERANCE[found.device.type]
    torch.testing.assert_close(found, expected.to(found.device), rtol=rtol, atol=atol)


def exact_float32() -> None:
    """Makes a GPU compute float32 products, convolutions and recurrent layers in float32, not in TF32."""
    torch.set_float32_matmul_precision("highest")
    # On by default, other than for products: cuDNN's convolutions and recurrent layers would have 10 bits of mantissa.
    torch.backends.cudnn.allow_tf32 = False


def without_dropout(module: Module) -> Module:
    """A module in evaluation mode that can be differentiated on a GPU too.

    cuDNN differentiates a recurrent layer in training mode only. Ours have no dropout of their own, so their mode
    changes no number.
    """
    module.eval()
    for each in module.modules():
        if isinstance(each, nn.RNNBase):
            assert each.dropout == 0
            each.train()
    return module
