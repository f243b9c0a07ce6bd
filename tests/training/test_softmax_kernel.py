"""The Triton kernel of the softmax against float64: in Triton's interpreter, or on a GPU where there is one."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from support.checkout import CHECKOUT
from tslrec.training.softmax_on_device import aligned, exponentiate_plainly

pytestmark = pytest.mark.skipif(
    find_spec("triton") is None, reason="Triton is not installed; PyTorch's builds for GPUs bring it"
)
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
CASES: dict[str, tuple[int, int, float, float, torch.dtype]] = {
    "ragged": (5, 9001, 1.0, 0.0, torch.float32),
    "one_block": (7, 4096, 30.0, 0.0, torch.float32),
    "one_row": (1, 5000, 1.0, 0.0, torch.float32),
    "one_item": (3, 1, 1.0, 0.0, torch.float32),
    "less_than_a_block": (4, 129, 1.0, 0.0, torch.float32),
    "huge": (5, 4100, 1e4, 0.0, torch.float32),
    "all_far_below_zero": (2, 4097, 1.0, -1e4, torch.float32),
    "all_far_above_zero": (2, 4097, 1.0, 1e4, torch.float32),
    "double": (4, 5000, 1.0, 0.0, torch.float64),
    "half": (4, 5000, 1.0, 0.0, torch.bfloat16),
}
"""Rows, items, scale and mean of the logits, and their type."""


def logits_of(name: str) -> tuple[Tensor, Tensor]:
    """Logits `[C, P]`, what fills the rows being no number, and the columns of the targets."""
    rows, items, scale, mean, dtype = CASES[name]
    draw = torch.Generator().manual_seed(0)
    logits = torch.full((rows, aligned(items)), torch.nan, dtype=dtype)
    logits[:, :items] = (mean + scale * torch.randn(rows, items, generator=draw, dtype=torch.float64)).to(dtype)
    columns = torch.randint(0, items, (rows,), generator=draw)
    columns[0] = items - 1
    return logits, columns


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    """What the kernel makes of all cases."""
    folder: Path = tmp_path_factory.mktemp("kernel")
    given: dict[str, Tensor] = {}
    for name in CASES:
        logits, columns = logits_of(name)
        given |= {
            f"logits_{name}": logits,
            f"columns_{name}": columns,
            f"num_items_{name}": torch.tensor(CASES[name][1]),
        }
    broken, columns = logits_of("ragged")
    broken[1, 7] = torch.nan
    broken[2, 4500] = torch.inf
    given |= {"logits_broken": broken, "columns_broken": columns, "num_items_broken": torch.tensor(9001)}
    save_file(given, folder / "in.safetensors")
    paths = [str(CHECKOUT / "src"), os.environ.get("PYTHONPATH", "")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)}
    if DEVICE == "cpu":
        environment["TRITON_INTERPRET"] = "1"
    script = CHECKOUT / "tests" / "support" / "apply_softmax_kernel.py"
    files = [str(folder / "in.safetensors"), str(folder / "out.safetensors")]
    ended = subprocess.run(
        [sys.executable, str(script), *files, DEVICE], env=environment, stderr=subprocess.PIPE, text=True
    )
    assert ended.returncode == 0, ended.stderr
    return load_file(folder / "out.safetensors")


@pytest.mark.parametrize("name", CASES)
def test_is_what_float64_gives(name: str, results: dict[str, Tensor]) -> None:
    _, items, _, _, dtype = CASES[name]
    given, columns = logits_of(name)
    wanted, sums, margins = given.double(), *torch.empty(2, len(given), dtype=torch.float64)
    exponentiate_plainly(wanted, items, columns, sums, margins)
    # A rounding of the result's own type, and some of the type that the kernel adds in.
    precise = torch.promote_types(dtype, torch.float32)
    tolerance = 8 * torch.finfo(precise).eps
    assert results[f"sums_{name}"].dtype == precise
    torch.testing.assert_close(results[f"sums_{name}"].double(), sums, rtol=tolerance, atol=0)
    largest = float(given[:, :items].double().abs().max())
    torch.testing.assert_close(results[f"margins_{name}"].double(), margins, rtol=0, atol=tolerance * max(1, largest))
    share = (results[f"logits_{name}"][:, :items].double() - wanted[:, :items]).abs() / sums[:, None]
    assert float(share.max()) <= max(tolerance, torch.finfo(dtype).eps)
    # Most exponentials are far below the largest one; each of them is right in its own size.
    here = torch.arange(items) != columns[:, None]
    exact = wanted[:, :items][here]
    relative = (results[f"logits_{name}"][:, :items][here].double() - exact).abs() / exact.clamp(min=1e-30)
    spread = float(-exact.clamp(min=1e-30).log().min()) if here.any() else 1.0
    assert not here.any() or float(relative.max()) <= max(tolerance * max(1, spread), 2 * torch.finfo(dtype).eps)


def test_rows_that_are_not_finite_are_seen_and_no_others(results: dict[str, Tensor]) -> None:
    assert torch.isfinite(results["sums_broken"] + results["margins_broken"]).tolist() == [
        True,
        False,
        False,
        True,
        True,
    ]
