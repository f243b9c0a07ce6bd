"""The part `llm13b` of the GPU benchmark, rehearsed on a CPU: every step measures, and counts what the plan counts."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from gpu_parts import llm13b
from gpu_parts.bench import Bench, NotMeasuredError
from gpu_parts.llm13b_figure3 import figure3
from gpu_parts.llm13b_planned import fits
from gpu_parts.llm13b_sft_setup import sft_groups
from gpu_parts.random_llm import (
    SEED,
    Subject,
    adapter_parameters,
    cost_of,
    make_subject,
    random_base,
    read_interactions,
)
from support.checkout import CHECKOUT, PYTHONPATH
from tslrec.data.batching import RandomBatches
from tslrec.llm.packing import ROW_LENGTH

STEPS = [step.name for step in llm13b.STEPS]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench("cpu", True, tmp_path, tmp_path / "data")


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Subject:
    folder = tmp_path_factory.mktemp("bench")
    return make_subject(Bench("cpu", True, folder, folder))


@pytest.fixture(scope="module")
def rehearsed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The record of the whole part, by step."""
    pytest.importorskip("deepspeed", reason="DeepSpeed is for Linux")
    folder = tmp_path_factory.mktemp("rehearsal")
    command = [sys.executable, "benchmarks/gpu.py", "--rehearse", "--part", "llm13b", "--folder", str(folder)]
    run = subprocess.run(
        [*command, "--data", str(folder)],
        cwd=CHECKOUT,
        env={"PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1", "PATH": "/usr/bin:/bin", "HOME": str(folder)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + (folder / "llm13b.log").read_text()
    steps: dict[str, Any] = json.loads((folder / "gpu.json").read_text())["steps"]
    return {name.partition("/")[2]: facts for name, facts in steps.items()}


def test_the_budgets_leave_time_for_the_other_parts() -> None:
    assert sum(step.seconds for step in llm13b.STEPS) < 240


@pytest.mark.slow
def test_every_step_measures(rehearsed: dict[str, Any]) -> None:
    ends = {name: facts["ended"] for name, facts in rehearsed.items()}
    assert ends == {**dict.fromkeys(STEPS, "measured"), "weights_8bit_4bit": "not measured"}
    for name in STEPS[:-1]:
        assert all(figure["value"] > 0 for figure in rehearsed[name]["figures"].values()), name


@pytest.mark.slow
def test_the_figures_are_there_beside_the_plan(rehearsed: dict[str, Any]) -> None:
    sft = rehearsed["sft"]["figures"]
    for group in ("users_16", f"users_48_rows_of_{2 * ROW_LENGTH}", "users_48_checkpointed"):
        assert sft[f"{group}_step"]["planned"] > 0
        assert sft[f"{group}_share_of_product_rate"]["aim"] == 45
        assert sft[f"{group}_tokens"]["value"] >= sft[f"{group}_tokens_without_padding"]["value"]
    zero = rehearsed["zero3_offload"]["figures"]
    assert zero["weights_in_host_memory"]["value"] == pytest.approx(zero["weights_in_host_memory"]["planned"], rel=0.05)
    assert zero["users_16_step"]["copy_floor"] < zero["users_16_step"]["value"]
    # The same users under both strategies.
    assert zero["users_16_tokens_per_step"] == sft["users_16_tokens_per_step"]
    assert rehearsed["augmentation"]["figures"].keys() >= {"items_16", "items_16_catalogue"}
    assert rehearsed["e4srec"]["figures"].keys() >= {"instances_16_tokens", "tested_16"}


@pytest.mark.slow
def test_figure_3_is_scaled_from_the_timed_steps(rehearsed: dict[str, Any], subject: Subject) -> None:
    found = rehearsed["figure3"]["figures"]
    rate = rehearsed["sft"]["figures"]["users_16_tokens"]["value"]
    hours = subject.plan.sft["shared"].tokens.computed / rate / 3600
    assert found["default_sft"]["value"] == pytest.approx(hours, rel=1e-3)
    instances = rehearsed["e4srec"]["figures"]["instances_16_tokens"]["value"]
    hours = subject.plan.e4srec["shared"].tokens.computed / instances / 3600
    assert found["default_e4srec_epoch"]["value"] == pytest.approx(hours, rel=1e-3)
    assert found["default_e4srec_over_tslrec"]["value"] > 1


def test_tokens_and_operations_are_the_plans_for_the_same_batches(bench: Bench, subject: Subject) -> None:
    users = subject.config.sft.batch_size
    steps = len(RandomBatches(subject.interactions.num_users, users, SEED))
    (group,) = sft_groups(bench, subject, [(users, steps, ROW_LENGTH, False)])
    costs = [group.cost(make()) for make in group.batches]
    whole, planned = sum(costs[1:], start=costs[0]), subject.plan.sft["shared"]
    assert (whole.computed, whole.needed) == (planned.tokens.computed, planned.tokens.needed)
    assert whole.flops == pytest.approx(planned.flops, rel=1e-12)
    assert whole.largest == planned.tokens.largest


def test_gradient_checkpointing_costs_one_more_pass(subject: Subject, bench: Bench) -> None:
    plain, checkpointed = sft_groups(bench, subject, [(16, 2, ROW_LENGTH, False), (16, 2, ROW_LENGTH, True)])
    batch = plain.batches[0]()
    less, more = plain.cost(batch), checkpointed.cost(batch)
    tokens, adapter = less.computed, adapter_parameters(subject)
    forward = cost_of(subject.shape, batch.examples, len(subject.prompt.instruction), adapter, training=False)
    assert more.flops - less.flops == pytest.approx(forward.flops - 2 * adapter * tokens)


def test_the_random_model_has_the_planned_sizes_in_bfloat16(subject: Subject) -> None:
    base = random_base(subject.shape, torch.device("cpu"))
    assert sum(parameter.numel() for parameter in base.parameters()) == subject.shape.num_parameters
    assert {parameter.dtype for parameter in base.parameters()} == {torch.bfloat16}
    assert base.rotary_emb.inv_freq.dtype == torch.float32  # type: ignore[union-attr]
    matrices = torch.cat([parameter.detach().flatten() for parameter in base.parameters() if parameter.dim() > 1])
    assert float(matrices.float().std()) == pytest.approx(0.02, rel=0.02)


def test_a_group_that_is_planned_to_overfill_the_card_is_not_tried(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    card = type("Card", (), {"total_memory": 10 * 2**30})()
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: card)
    bench.device_name = "cuda"
    assert fits(bench, "small", 9.0)
    assert not fits(bench, "large", 9.5)
    assert bench.lines == ["large: not tried, planned to take 9.5 of the card's 10.0 GiB"]


def test_what_is_missing_is_said(bench: Bench) -> None:
    with pytest.raises(NotMeasuredError, match="no rate of sft, augmentation, e4srec, e4srec_inference"):
        figure3(bench)
    bench.rehearse = False
    with pytest.raises(NotMeasuredError, match=r"beauty.txt is not here"):
        read_interactions(bench)
