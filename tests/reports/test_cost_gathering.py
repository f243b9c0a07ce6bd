"""What a plan says of ZeRO-3's traffic is what DeepSpeed gathers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.processes import run_together
from tslrec.llm.shape import Shape
from tslrec.reports.costs.gathering import (
    LIVE_PARAMETERS,
    PREFETCHED_PARAMETERS,
    gathered_parameters,
    held_parameters,
)

pytest.importorskip("deepspeed", reason="DeepSpeed is for Linux")

LLAMA_13B = Shape(5120, 13824, 40, 40, 40, 128, 32000)


@pytest.mark.slow
@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_step_gathers_what_is_counted(tmp_path: Path, checkpointing: bool) -> None:
    from support.gathering_scenario import LIVE, PREFETCHED, SHAPE

    run_together("gathering_scenario.py", str(tmp_path), str(int(checkpointing)), processes=1)
    gathered, held = json.loads((tmp_path / "gathered.json").read_text())[-1]
    planned = gathered_parameters(SHAPE, gradient_checkpointing=checkpointing, live=LIVE)
    assert planned == pytest.approx(gathered, rel=0.03)
    # The last bucket may exceed the limit.
    assert LIVE <= held <= held_parameters(SHAPE, LIVE, PREFETCHED) * 1.03


def test_the_limits_are_deepspeeds_defaults() -> None:
    from deepspeed.runtime.zero.config import DeepSpeedZeroConfig

    defaults = DeepSpeedZeroConfig(stage=3)
    assert defaults.max_live_parameters == LIVE_PARAMETERS
    assert defaults.prefetch_bucket_size == PREFETCHED_PARAMETERS


def test_llama_2_13b_is_gathered_almost_twice_and_with_checkpointing_almost_three_times() -> None:
    linear = 40 * (4 * 5120**2 + 3 * 5120 * 13824)
    embeddings = 32000 * 5120
    plain = gathered_parameters(LLAMA_13B, gradient_checkpointing=False)
    assert plain == 2 * linear - 10**9 + embeddings
    recomputed = gathered_parameters(LLAMA_13B, gradient_checkpointing=True)
    assert recomputed - plain == linear - 40 * 5120 * 13824
    assert held_parameters(LLAMA_13B) == 1_050_000_000
