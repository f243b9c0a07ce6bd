"""The part `scale` of the GPU benchmark, rehearsed on the CPU in tiny sizes: every step runs, and the ways agree."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from gpu_parts.bench import Bench, NotMeasuredError, matmul_precision
from gpu_parts.scale import STEPS
from gpu_parts.scale_comparison import compare
from gpu_parts.scale_losses import factors, ours, ours_without_kernel, pytorch
from gpu_parts.scale_market import MEAN_LENGTH, market, sizes

STEP = {step.name: step for step in STEPS}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench("cpu", True, tmp_path, tmp_path)


def test_the_part_takes_little_of_the_ten_minutes() -> None:
    assert sum(step.seconds for step in STEPS) <= 62


@pytest.mark.filterwarnings("ignore:You are trying to `self.log")
@pytest.mark.parametrize("name", ["training_64", "training_256"])
def test_training_steps_are_timed_with_all_items_and_with_a_sample(bench: Bench, name: str) -> None:
    STEP[name].run(bench)
    for kind in ("full", "full_tf32", "sampled"):
        assert {f"{kind}_step", f"{kind}_targets", f"{kind}_peak"} <= bench.figures.keys()
        assert bench.figures[f"{kind}_step"]["value"] > 0
    assert bench.figures["full_share"]["value"] > 0
    assert torch.get_float32_matmul_precision() == "highest"


def test_the_ways_to_compute_the_loss_agree(bench: Bench) -> None:
    STEP["losses"].run(bench)
    # A processor may have products of less precision, too.
    for way, tolerance in {"without_kernel": 1e-5, "pytorch": 1e-5, "tf32": 1e-2}.items():
        assert bench.figures[f"{way}_loss_difference"]["value"] < tolerance
        assert bench.figures[f"{way}_gradient_difference"]["value"] < tolerance
    assert bench.figures["ours_again_differing"]["value"] == 0


def test_a_difference_is_seen(bench: Bench) -> None:
    given = factors(bench, 50, 8)
    loss, grad_user, grad_table = ours(*given)
    compare(bench, "changed", (1.5 * loss, grad_user, 2 * grad_table), (loss, grad_user, grad_table))
    assert bench.figures["changed_loss_difference"]["value"] == pytest.approx(0.5)
    assert bench.figures["changed_gradient_difference"]["value"] == pytest.approx(1.0)
    for way in (ours_without_kernel, pytorch):
        for one, other in zip(way(*given), (loss, grad_user, grad_table), strict=True):
            torch.testing.assert_close(one, other)


def test_evaluation_and_chunk_sizes_are_timed(bench: Bench) -> None:
    STEP["evaluation"].run(bench)
    assert bench.figures["users"]["value"] > 0
    STEP["chunk_sizes"].run(bench)
    assert len([name for name in bench.figures if "_items_" in name]) == 6


@pytest.mark.parametrize(("name", "reason"), [("captured", "needs a GPU"), ("peers", "not installed|need a GPU")])
def test_what_a_cpu_lacks_is_a_reason_and_no_failure(bench: Bench, name: str, reason: str) -> None:
    with pytest.raises(NotMeasuredError, match=reason):
        STEP[name].run(bench)


def test_every_item_of_the_market_occurs(bench: Bench) -> None:
    num_users, num_items = sizes(bench)
    interactions = market(num_users, num_items)
    assert interactions.num_interactions == num_users * MEAN_LENGTH
    assert len(set(interactions.items.tolist())) == num_items
    # Some items are much more popular than others.
    counts = sorted((interactions.items == item).sum() for item in range(1, num_items + 1))
    assert sum(counts[-num_items // 5 :]) > 0.4 * interactions.num_interactions


def test_the_precision_of_products_is_set_back() -> None:
    before = torch.get_float32_matmul_precision()

    def fail() -> None:
        with matmul_precision("high"):
            assert torch.get_float32_matmul_precision() == "high"
            raise ValueError("ended")

    with pytest.raises(ValueError, match="ended"):
        fail()
    assert torch.get_float32_matmul_precision() == before
