"""A plan says what a run then does: tokens counted as they are batched, operations as torch counts them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from support.checkout import CHECKOUT
from support.interactions import make_interactions
from tslrec.cli.main import main
from tslrec.config import LLMConfig
from tslrec.data.audit import audit
from tslrec.data.windows import recent_positions
from tslrec.llm.packing import Packer
from tslrec.llm.shape import Shape, shape_of
from tslrec.llm.tiny import random_llama
from tslrec.reports.costs.memory import GIB, HOST_BUFFER, Memory, sft_memory
from tslrec.reports.costs.work import both_ways, histogram
from tslrec.stages.sft.data import PreferenceDataModule
from tslrec.system.errors import UserError

LLAMA_13B = Shape(5120, 13824, 40, 40, 40, 128, 32000)
HEAD_13B = 32000 * 5120


@pytest.fixture
def train_lengths() -> NDArray[np.int64]:
    return np.random.default_rng(0).geometric(0.15, 203).clip(max=50)


def test_the_sizes_of_llama_2_13b_are_the_published_ones() -> None:
    settings = yaml.safe_load((CHECKOUT / "configs/llm/llama2_13b.yaml").read_text())
    assert shape_of(LLMConfig(name="llama2_13b", shape=settings["shape"])) == LLAMA_13B
    assert LLAMA_13B.num_parameters + HEAD_13B == 13_015_864_320
    assert LLAMA_13B.largest_layer == 163_840_000
    assert LLAMA_13B.lora_parameters(8, ["q_proj", "v_proj"]) == 6_553_600


def test_parameters_are_those_of_a_model_of_that_shape() -> None:
    for sizes in ({}, {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "num_key_value_heads": 4}):
        shape = shape_of(LLMConfig(name="tiny", random=sizes))
        counted = sum(parameter.numel() for parameter in random_llama(sizes).parameters())
        assert shape.num_parameters == counted


def test_operations_are_those_that_torch_counts() -> None:
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_key_value_heads": 4}
    shape = shape_of(LLMConfig(name="tiny", random=sizes))
    model = random_llama(sizes)
    # torch does not count the operations of its fused attention on CPUs.
    model.set_attn_implementation("eager")
    examples, length = 3, 40
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(inputs_embeds=torch.randn(examples, length, 64))
    # The naive attention computes what is masked as well: every token attends to all.
    expected = shape.forward_flops(examples * length, examples * length * length)
    assert counter.get_total_flops() == pytest.approx(expected, rel=0.02)


def test_tokens_are_those_of_the_batches(train_lengths: NDArray[np.int64]) -> None:
    items = [[1 + i % 7 for i in range(length + 2)] for length in train_lengths]
    instruction, response, batch = 11, 3, 16
    planned = both_ways(train_lengths, (instruction, response), batch, seed=4)
    for way, row_length in (("shared", Packer(response).row_length), ("naive", None)):
        data = PreferenceDataModule(
            make_interactions(items),
            np.zeros((len(items), 2), dtype=np.float32),
            Packer(response, row_length),
            max_len=50,
            batch_size=batch,
            seed=4,
        )
        batches = list(data.train_dataloader())
        rows = sum(each.examples.tokens_RT.shape[0] for each in batches)
        computed = sum(each.examples.tokens_RT.numel() for each in batches)
        needed = sum(each.examples.num_tokens for each in batches)
        prefixes = len(batches) if way == "shared" else rows
        assert planned[way].computed == computed + instruction * prefixes
        assert planned[way].needed == needed + instruction * prefixes
        assert planned[way].steps == len(batches)
    assert planned["shared"].padding_share < planned["naive"].padding_share


def test_e4srecs_instances_are_those_of_the_audit(train_lengths: NDArray[np.int64]) -> None:
    interactions = make_interactions([[1 + i % 7 for i in range(length)] for length in train_lengths + 20])
    _, found = recent_positions(interactions.train_lengths, 50)
    assert len(found) == audit(interactions, 50, None).training.recent_positions
    assert found.min() == 0
    assert found.max() <= 49


def test_the_histogram_counts_every_user_once(train_lengths: NDArray[np.int64]) -> None:
    ranges = histogram(train_lengths)
    assert sum(users for _, _, users in ranges) == len(train_lengths)
    assert [(low, high) for low, high, _ in ranges][:4] == [(1, 1), (2, 2), (3, 4), (5, 8)]


@pytest.mark.parametrize("devices", [1, 2, 8])
@pytest.mark.parametrize(("optimizer", "parameters"), [(False, False), (True, False), (True, True)])
def test_memory_under_zero_3_is_what_deepspeed_estimates(devices: int, optimizer: bool, parameters: bool) -> None:
    stage3 = pytest.importorskip("deepspeed.runtime.zero.stage3", reason="DeepSpeed is for Linux")
    total, largest = LLAMA_13B.num_parameters, LLAMA_13B.largest_layer
    host, device, _ = stage3.estimate_zero3_model_states_mem_needs(
        total, largest, devices, 1, optimizer, parameters, True, HOST_BUFFER
    )
    # Its estimate is of full fine-tuning: all parameters are trained.
    ours = sft_memory(
        LLAMA_13B,
        total,
        "bfloat16",
        tokens_per_step=0,
        devices=devices,
        zero_stage=3,
        offload_optimizer=optimizer,
        offload_parameters=parameters,
    )
    assert ours.device == pytest.approx(device / GIB, rel=1e-6)
    if optimizer:
        assert ours.host == pytest.approx(host / GIB, rel=1e-6)


def test_lora_leaves_the_frozen_weights_as_what_must_fit() -> None:
    trainable = LLAMA_13B.lora_parameters(8, ["q_proj", "v_proj"])
    memory = sft_memory(LLAMA_13B, trainable, "bfloat16", tokens_per_step=0, devices=1)
    assert memory.weights == pytest.approx(23.9, abs=0.05)
    assert memory.states == pytest.approx(0.1, abs=0.01)
    assert memory.host == 0
    halved = sft_memory(LLAMA_13B, trainable, "bfloat16", tokens_per_step=0, devices=2, zero_stage=3)
    assert halved.weights == pytest.approx(memory.weights / 2)


def test_sizes_that_are_not_given_are_asked_for() -> None:
    with pytest.raises(UserError, match=r"llm\.shape is not given"):
        shape_of(LLMConfig(name="mine", path="somewhere"))
    with pytest.raises(UserError, match="head_count"):
        shape_of(LLMConfig(name="mine", shape={"head_count": 3}))
    complete = LLMConfig(name="mine", shape={"hidden_size": 64, "num_attention_heads": 4})
    with pytest.raises(UserError, match="intermediate_size"):
        shape_of(replace(complete))


def test_the_plan_of_13b_needs_neither_weights_nor_gpus_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data.txt"
    data.write_text(
        "".join(f"{user} " + " ".join(str(1 + (user + i) % 9) for i in range(8)) + "\n" for user in range(9))
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("TSLREC_CACHE", str(tmp_path / "cache"))
    main(["plan", "experiment=tslrec_fmlp_beauty", f"data.path={data}", "data.download.sha256=null"])
    printed = capsys.readouterr().out
    for word in ("12,852,024,320", "E4SRec", "gathered", "augmentation", "estimated"):
        assert word in printed, word
    assert not (tmp_path / "artifacts").exists()


def test_a_method_without_a_language_model_has_no_plan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["plan", "method=ci"])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert "choose method=tslrec" in line


def test_quantised_weights_and_checkpointing_take_less_of_a_gpu() -> None:
    trainable = LLAMA_13B.lora_parameters(8, ["q_proj", "v_proj"])

    def memory(**settings: Any) -> Memory:
        return sft_memory(LLAMA_13B, trainable, "bfloat16", tokens_per_step=1000, devices=1, **settings)

    whole = memory()
    # The token embeddings, 1.3 % of the weights, stay as they are.
    assert memory(weight_bits=8).weights / whole.weights == pytest.approx(0.506, abs=0.001)
    assert memory(weight_bits=4).weights / whole.weights == pytest.approx(0.267, abs=0.001)
    saving = memory(gradient_checkpointing=True)
    assert saving.activations < whole.activations / 10
    assert saving.weights == whole.weights
