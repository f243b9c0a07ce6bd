"""The softmax as a GPU computes it is the plain one; here on tensors of the CPU, with PyTorch's own operations."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from support.checkout import CHECKOUT
from tslrec.training import softmax_on_device as module
from tslrec.training.softmax_on_device import chunk_users, softmax_on_device, sum_over_items


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Chunks of 16 users, stretches of 32 items or more."""
    for name, value in {"CHUNK_BYTES": 0, "LEAST_USERS": 16, "LEAST_STRETCH": 2, "PARTIAL_SUMS": 16 * 3 * 5}.items():
        monkeypatch.setattr(module, name, value)


def factors(num_users: int, num_items: int, scale: float, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    user_BD = scale * torch.randn(num_users, 3, dtype=torch.float64)
    table_ID = scale * torch.randn(num_items + 1, 3, dtype=torch.float64)
    return user_BD.to(dtype), table_ID.to(dtype), torch.randint(1, num_items + 1, (num_users,))


def plain(user_BD: Tensor, table_ID: Tensor, targets_B: Tensor, weights_B: Tensor) -> tuple[Tensor, ...]:
    """Loss and gradients by PyTorch's cross-entropy in float64."""
    user_BD, table_ID = user_BD.double().requires_grad_(), table_ID.double().requires_grad_()
    losses_B = F.cross_entropy(user_BD @ table_ID[1:].T, (targets_B - 1).clamp(min=0), reduction="none")
    loss = (losses_B * weights_B).sum()
    return (loss.detach(), *torch.autograd.grad(loss, (user_BD, table_ID)))


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("scale", [1.0, 60.0])
@pytest.mark.parametrize(("num_users", "num_items"), [(37, 211), (16, 64), (1, 33), (5, 1)])
def test_is_exact(
    num_users: int, num_items: int, scale: float, weighted: bool, dtype: torch.dtype, tolerance: float
) -> None:
    user_BD, table_ID, targets_B = factors(num_users, num_items, scale, dtype)
    weights_B = torch.arange(num_users) % 3 / 2 if weighted else torch.ones(num_users)
    targets_B[weights_B == 0] = 0
    found = softmax_on_device(
        user_BD, table_ID, targets_B, weights_B.to(dtype) if weighted else None, need_user=True, need_table=True
    )
    for one, other in zip(found, plain(user_BD, table_ID, targets_B, weights_B), strict=True):
        assert one is not None
        assert one.dtype == dtype
        # Products of float32 are rounded, and e^logit magnifies that by the size of a logit.
        largest = max(1.0, float(other.abs().max())) * (1 if dtype == torch.float64 else max(1.0, scale**2 / 10))
        assert float((one.double() - other).abs().max()) <= tolerance * largest


def test_nothing_is_computed_that_is_not_needed() -> None:
    user_BD, table_ID, targets_B = factors(37, 211, 1.0, torch.float64)
    loss, grad_user_BD, grad_table_ID = softmax_on_device(
        user_BD, table_ID, targets_B, None, need_user=False, need_table=False
    )
    assert grad_user_BD is grad_table_ID is None
    torch.testing.assert_close(loss, plain(user_BD, table_ID, targets_B, torch.ones(37))[0])


def test_no_targets_give_no_loss_and_no_gradient() -> None:
    user_BD, table_ID, targets_B = factors(3, 20, 1.0, torch.float32)
    loss, grad_user_BD, grad_table_ID = softmax_on_device(
        user_BD[:0], table_ID, targets_B[:0], None, need_user=True, need_table=True
    )
    assert float(loss) == 0
    assert grad_user_BD is not None
    assert grad_user_BD.shape == (0, 3)
    assert grad_table_ID is not None
    assert not grad_table_ID.any()


def test_logits_that_are_not_finite_give_a_loss_that_is_not_finite() -> None:
    user_BD, table_ID, targets_B = factors(3, 20, 1.0, torch.float32)
    user_BD[1, 1] = torch.nan
    assert not torch.isfinite(
        softmax_on_device(user_BD, table_ID, targets_B, None, need_user=False, need_table=False)[0]
    )


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("weighted", [False, True])
def test_nothing_waits_for_a_value(weighted: bool) -> None:
    """Tensors on `meta` have no values: an operation that needs one, or whose shape depends on one, fails."""
    user_BD, table_ID = torch.zeros(37, 3, device="meta"), torch.zeros(212, 3, device="meta")
    targets_B = torch.ones(37, dtype=torch.int64, device="meta")
    weights_B = torch.ones(37, device="meta") if weighted else None
    loss, *gradients = softmax_on_device(user_BD, table_ID, targets_B, weights_B, need_user=True, need_table=True)
    for gradient, factor in zip(gradients, (user_BD, table_ID), strict=True):
        assert gradient is not None
        assert gradient.shape == factor.shape
    with pytest.raises(RuntimeError):
        float(loss)


@pytest.mark.parametrize(
    ("num_users", "num_items", "width", "chunks"), [(4096, 12_101, 64, 1), (4096, 10**6, 64, 16), (4096, 10**6, 256, 8)]
)
def test_chunks_are_of_equal_size_and_bounded(num_users: int, num_items: int, width: int, chunks: int) -> None:
    users = chunk_users(num_users, num_items, width, 4)
    assert users == num_users // chunks
    assert users * num_items * 4 <= max(module.CHUNK_BYTES, module.LEAST_USERS * num_items * 4, 8 * width * num_items)


def test_a_long_sum_is_cut_into_stretches(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    shapes: list[tuple[int, ...]] = []
    bmm = torch.bmm

    def noted(one: Tensor, other: Tensor) -> Tensor:
        shapes.append((*one.shape, other.shape[2]))
        return bmm(one, other)

    monkeypatch.setattr(torch, "bmm", noted)
    padded_CP, items_ID = torch.randn(16, 50_016, dtype=torch.float64), torch.randn(50_001, 8, dtype=torch.float64)
    factor_CI = padded_CP[:, :50_001]
    out_CD = torch.empty(16, 8, dtype=torch.float64)
    sum_over_items(factor_CI, items_ID, out_CD)
    torch.testing.assert_close(out_CD, factor_CI @ items_ID)
    assert shapes == [(47, 16, 1056, 8)]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU, whose kernel works")
def test_without_a_kernel_pytorch_takes_its_place_and_says_why(log_lines: list[str]) -> None:
    assert module.fused_exponentiate.__wrapped__() is None
    assert len(log_lines) == 1
    assert log_lines[0].startswith("softmax: no Triton kernel here, PyTorch's own operations take its place")
    assert module.best_exponentiate("cpu") is module.exponentiate_plainly


def test_triton_is_not_imported_for_a_cpu() -> None:
    code = (
        "import sys, torch; from tslrec.training.losses import softmax_loss; "
        "softmax_loss(torch.ones(2, 3), torch.ones(5, 3), torch.tensor([1, 2])); "
        "assert 'tslrec.training.softmax_kernel' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=CHECKOUT)
