"""The time of a phase, by hand: arithmetic, reading weights, or copying them from host memory."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from support.checkout import CHECKOUT
from tslrec.llm.shape import Shape
from tslrec.reports.costs.gathering import gathered_parameters
from tslrec.reports.costs.placement import Placement, precisions
from tslrec.reports.costs.timing import Bound, Traffic, bound_of, inference_traffic, training_traffic
from tslrec.system.device_profiles import DEVICES, DeviceProfile

SMALL = Shape(
    hidden_size=8,
    intermediate_size=16,
    num_hidden_layers=2,
    num_attention_heads=2,
    num_key_value_heads=1,
    head_dim=4,
    vocab_size=10,
)
LINEAR = 2 * (8 * 8 + 8 * 4 + 8 * 4 + 8 * 8 + 3 * 8 * 16)
DEVICE = DeviceProfile("made up", bf16_tflops=100, fp32_tflops=20, step_share=0.5, memory_gbs=1000, link_gbs=10)
LLAMA_13B = Shape(5120, 13824, 40, 40, 40, 128, 32000)
HELD = Placement(dtype="bfloat16", in_16_bits=True)
MEASURED = CHECKOUT / "results" / "bench" / "gpu.json"
STREAMED = Placement(dtype="bfloat16", zero_stage=3, offload_parameters=True)


def test_many_tokens_take_the_time_of_their_arithmetic() -> None:
    # 2 s of products, which are half of a step.
    bound = bound_of(200e12, 10, Traffic(memory=1e9, link=0), DEVICE, in_16_bits=True)
    assert (bound.seconds, bound.by) == (pytest.approx(4), "arithmetic")
    assert bound_of(200e12, 10, Traffic(1e9, 0), DEVICE, in_16_bits=False).seconds == pytest.approx(20)


def test_few_tokens_take_the_time_of_reading_the_weights() -> None:
    # The products take 3 s instead of 2; the rest of the steps 2 as before.
    bound = bound_of(200e12, 10, Traffic(memory=300e9, link=0), DEVICE, in_16_bits=True)
    assert (bound.seconds, bound.by) == (pytest.approx(5), "memory")


def test_offloaded_weights_take_the_time_of_their_copies() -> None:
    bound = bound_of(200e12, 10, Traffic(memory=300e9, link=6e9), DEVICE, in_16_bits=True)
    assert (bound.seconds, bound.by) == (pytest.approx(6), "PCIe")
    quick = bound_of(200e12, 10, Traffic(memory=300e9, link=4e9), DEVICE, in_16_bits=True)
    assert (quick.seconds, quick.by) == (pytest.approx(5), "memory")


def test_few_tokens_on_a_fast_card_take_the_time_of_launching_kernels() -> None:
    slow_host = replace(DEVICE, layer_ms=30)
    traffic = Traffic(memory=1e9, link=0, layers=10)
    assert bound_of(200e12, 10, traffic, slow_host, in_16_bits=True).by == "arithmetic"
    # 10 steps of 2 parts of 10 layers, 30 ms each.
    bound = bound_of(200e12, 10, traffic, slow_host, in_16_bits=True, parts=2)
    assert (bound.seconds, bound.by) == (pytest.approx(6), "launches")


def test_what_is_not_known_of_a_device_bounds_nothing() -> None:
    unknown = replace(DEVICE, memory_gbs=None, link_gbs=None)
    bound = bound_of(200e12, 10, Traffic(memory=300e9, link=6e9), unknown, in_16_bits=True)
    assert (bound.seconds, bound.by) == (pytest.approx(4), "arithmetic")


def test_a_training_step_reads_the_weights_in_each_pass() -> None:
    assert SMALL.linear_parameters == LINEAR
    held = Placement(dtype="bfloat16")
    assert training_traffic(SMALL, held) == Traffic(memory=2 * 2 * LINEAR, link=0, layers=2 * 2)
    recomputed = replace(held, gradient_checkpointing=True)
    assert training_traffic(SMALL, recomputed) == Traffic(memory=3 * 2 * LINEAR, link=0, layers=3 * 2)
    assert training_traffic(SMALL, replace(held, weight_bits=8)).memory == 2 * LINEAR


def test_weights_are_copied_only_where_zero_3_keeps_them_on_the_host() -> None:
    gathered = gathered_parameters(SMALL, gradient_checkpointing=False)
    # All of so small a model stays gathered between the passes.
    assert gathered == LINEAR + 10 * 8
    assert training_traffic(SMALL, STREAMED).link == 2 * gathered
    assert training_traffic(SMALL, replace(STREAMED, zero_stage=2)).link == 0
    assert inference_traffic(SMALL, STREAMED, under_strategy=True).link == 2 * SMALL.num_parameters
    assert inference_traffic(SMALL, STREAMED, under_strategy=False) == Traffic(memory=2 * LINEAR, link=0, layers=2)


def llama_step(tokens: int, placement: Placement, device: DeviceProfile = DEVICES["h200"], parts: int = 2) -> Bound:
    """An SFT step of Llama-2-13B."""
    flops = 2 * LLAMA_13B.forward_flops(tokens, tokens**2 / 2)
    return bound_of(flops, 1, training_traffic(LLAMA_13B, placement), device, in_16_bits=True, parts=parts)


def test_llama_2_13b_is_bound_by_launches_at_160_tokens_a_step_and_by_pcie_when_offloaded() -> None:
    assert llama_step(160, HELD).by == "launches"
    assert llama_step(160, HELD, replace(DEVICES["h200"], layer_ms=None)).by == "memory"
    assert llama_step(4400, HELD).by == "arithmetic"
    assert llama_step(1600, replace(HELD, zero_stage=3, offload_parameters=True)).by == "PCIe"


@pytest.mark.parametrize("users", [16, 64, 128, 256, 512])
def test_a_step_of_llama_2_13b_takes_about_what_was_measured(users: int) -> None:
    content = json.loads(MEASURED.read_text(encoding="utf-8"))
    if content["machine"]["card"] != DEVICES["h200"].title:
        pytest.skip("results/bench/gpu.json is of another card than the h200 of the profile")
    figures = content["steps"]["llm13b/sft"]["figures"]
    planned = llama_step(round(figures[f"users_{users}_tokens_per_step"]["value"]), HELD).seconds
    # Where launches and arithmetic take about as long, neither hides all of the other.
    assert planned == pytest.approx(figures[f"users_{users}_step"]["value"], rel=0.3)


@pytest.mark.parametrize(
    ("dtype", "precision", "expected"),
    [
        ("float32", "32-true", ("float32", False)),
        ("bfloat16", "32-true", ("bfloat16", True)),
        ("float32", "bf16-true", ("bfloat16", True)),
        ("bfloat16", "16-true", ("float16", True)),
        ("float32", "bf16-mixed", ("float32", True)),
    ],
)
def test_precisions_are_those_that_lightning_makes(dtype: str, precision: str, expected: tuple[str, bool]) -> None:
    assert precisions(dtype, precision) == expected
