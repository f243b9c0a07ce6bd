"""The benchmark of the language model's stages: what its figures are computed from, and that both ways are measured."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from llm import LINES_PER_TASK, WAYS, Task, computed, figures, measure
from tslrec.llm.weights_source import resolve
from tslrec.settings.language_models import LLMConfig, LoraConfig
from tslrec.stages.sft.loading import new_model


def task(**run: object) -> Task:
    work = {"shared": 1_000, "naive": 4_000}
    plan = {way: SimpleNamespace(tokens=SimpleNamespace(computed=work[way]), flops=work[way] * 1e9) for way in WAYS}
    return Task("sft", run, [0, 1, 2], plan)  # type: ignore[arg-type]


def test_figures_are_ratios_of_the_same_batches() -> None:
    timed = {"shared": [(1.0, 10), (1.0, 30)], "naive": [(2.0, 40), (4.0, 120)]}
    found = {name: value for name, value, _ in figures(task(), timed, gflops=40.0)}
    assert len(found) == LINES_PER_TASK
    assert found["sft_speedup"] == 3
    assert found["sft_speedup_of_the_median_batch"] == 3
    assert found["sft_token_ratio"] == 4
    assert found["sft_speedup_share"] == 75
    assert (found["sft_tokens_per_second_shared"], found["sft_whole_shared"]) == (20, 50)
    # 1,000 GFLOP at 40 a second are 25 seconds of the 50.
    assert found["sft_floor_share_shared"] == 50


def test_both_ways_take_turns_and_the_first_batch_is_not_counted() -> None:
    seen: list[tuple[str, int]] = []

    def noting(way: str) -> Callable[[Any], int]:
        def run(batch: Any) -> int:
            seen.append((way, batch))
            return 7

        return run

    timed = measure(task(**{way: noting(way) for way in WAYS}))
    assert seen == [(way, batch) for batch in (0, 1, 2) for way in WAYS]
    assert [tokens for _, tokens in timed["naive"]] == [7, 7]


@pytest.mark.parametrize("way", WAYS)
def test_tokens_are_counted_with_padding_and_the_instruction_where_it_runs(way: str, tmp_path: Path) -> None:
    llm = LLMConfig(name="tiny", random={}, lora=LoraConfig(), shared_prefix=way == "shared")
    model = new_model(llm, resolve(llm, tmp_path), torch.randn(9, 4), 3)
    examples = model.packer([np.array([1, 2, 3, 4]), np.array([5])])
    instruction, response = len(model.instruction_P), len(model.response_J)
    apart = 2 * (instruction + 4 + response)
    together = instruction + 4 + 1 + 2 * response
    assert computed(model, examples) == (together if way == "shared" else apart)
