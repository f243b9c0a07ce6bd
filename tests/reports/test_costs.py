"""A plan says what a run then does: tokens counted as they are batched, operations as torch counts them."""

from __future__ import annotations

import json
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
from tslrec.data.audit import audit
from tslrec.data.ingest import ingest
from tslrec.data.windows import recent_positions
from tslrec.llm.packing import Packer
from tslrec.llm.shape import Shape, shape_of
from tslrec.llm.tiny import random_llama
from tslrec.pipeline.composition import compose_overrides
from tslrec.reports.costs.activations import Step
from tslrec.reports.costs.forecast import plan_of
from tslrec.reports.costs.memory import CONTEXT_BYTES, GIB, HOST_BUFFER, Memory, pinned_bytes, training_memory
from tslrec.reports.costs.placement import Placement
from tslrec.reports.costs.work import both_ways, histogram
from tslrec.settings.language_models import LLMConfig, LoraConfig
from tslrec.stages.e4srec.data import InstanceDataModule
from tslrec.stages.sft.data import PreferenceDataModule
from tslrec.system.errors import UserError

LLAMA_13B = Shape(5120, 13824, 40, 40, 40, 128, 32000)
HEAD_13B = 32000 * 5120
BF16 = Placement(dtype="bfloat16", in_16_bits=True)
NO_TOKENS = Step(0, 0, 0)


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


def test_a_share_of_e4srecs_instances_is_planned_as_it_is_trained() -> None:
    config = compose_overrides(["method=tslrec", "llm=tiny", "data.reader.num_users=60", "e4srec.share=.25"])
    config.data.reader |= {"num_items": 40, "num_categories": 4}
    planned = plan_of(config).e4srec["shared"].tokens
    data = InstanceDataModule(
        ingest(config.data, Path(config.cache)),
        Packer(num_response=2),
        max_len=config.training.max_len,
        batch_size=config.e4srec.batch_size,
        eval_batch_size=4,
        seed=0,
        share=0.25,
    )
    assert planned.examples == len(data.targets_N)
    assert planned.steps == len(data.batches)


def test_a_plan_of_e4srec_says_where_its_work_stands() -> None:
    with pytest.raises(UserError, match="method=e4srec stands beside the SFT's; choose method=tslrec"):
        plan_of(compose_overrides(["method=e4srec", "llm=tiny"]))


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
    # Its estimate is of full fine-tuning: all parameters are trained. What is gathered it takes to be one layer and its
    # gradients; see `tslrec.reports.costs.gathering` for what is.
    placement = replace(BF16, zero_stage=3, offload_optimizer=optimizer, offload_parameters=parameters)
    ours = training_memory(LLAMA_13B, LoraConfig(), total, NO_TOKENS, placement, devices)
    assert ours.weights + ours.states == pytest.approx((device - 4 * largest) / GIB, rel=1e-6, abs=1e-9)
    if optimizer:
        # It takes pinned weights to be as large as the buffers of the optimizer; see `pinned_bytes` for what they are.
        weights = parameters * (HOST_BUFFER * 2 * total - pinned_bytes(LLAMA_13B, placement, devices))
        assert ours.host == pytest.approx((host - weights) / GIB, rel=1e-6)


def test_pinned_weights_take_powers_of_two() -> None:
    placement = replace(BF16, zero_stage=3, offload_optimizer=True, offload_parameters=True)
    # Measured on a card: 40.5 GiB for weights of 23.9.
    assert pinned_bytes(LLAMA_13B, placement) / GIB == pytest.approx(40.5, abs=0.03)
    # Four of 64 MiB and three of 256 MiB a layer, two norms of 16 KiB, and the table of 512 MiB with its norm.
    by_hand = 40 * (4 * 2**26 + 3 * 2**28 + 2 * 2**14) + 2**29 + 2**14
    assert pinned_bytes(LLAMA_13B, placement) == by_hand
    assert pinned_bytes(LLAMA_13B, placement, 2) == pytest.approx(by_hand, rel=1e-3)


def test_lora_leaves_the_frozen_weights_as_what_must_fit() -> None:
    trainable = LLAMA_13B.lora_parameters(8, ["q_proj", "v_proj"])
    memory = training_memory(LLAMA_13B, LoraConfig(), trainable, NO_TOKENS, BF16)
    assert memory.weights == pytest.approx(23.9, abs=0.05)
    assert memory.states == pytest.approx(0.1, abs=0.01)
    assert memory.host == 0
    assert memory.device - memory.allocated == CONTEXT_BYTES / GIB
    halved = training_memory(LLAMA_13B, LoraConfig(), trainable, NO_TOKENS, replace(BF16, zero_stage=3), 2)
    assert halved.weights == pytest.approx(memory.weights / 2)
    # 1.05 billion parameters in bf16.
    assert halved.working == pytest.approx(2.1e9 / GIB)


def test_what_is_beside_the_language_model_counts() -> None:
    def others(**settings: int) -> float:
        return training_memory(LLAMA_13B, LoraConfig(), 0, NO_TOKENS, BF16, **settings).others

    assert others(num_items=999_999, item_size=256) - others() == pytest.approx(4 * 1_000_000 * 256 / GIB)


def test_sizes_that_are_not_given_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"its sizes are not known"):
        shape_of(LLMConfig(name="mine", path="somewhere"))
    with pytest.raises(UserError, match="head_count"):
        shape_of(LLMConfig(name="mine", shape={"head_count": 3}))
    (tmp_path / "config.json").write_text('{"hidden_size": 64, "num_attention_heads": 4, "head_dim": null, "x": "y"}')
    with pytest.raises(UserError, match=r"intermediate_size.* not given"):
        shape_of(LLMConfig(name="mine", path=str(tmp_path)))
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    (tmp_path / "config.json").write_text(json.dumps({**sizes, "vocab_size": 300, "attention_bias": False}))
    assert shape_of(LLMConfig(name="mine", path=str(tmp_path))) == Shape(64, 96, 2, 4, 4, 16, 300)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="no readable sizes of a language model"):
        shape_of(LLMConfig(name="mine", path=str(tmp_path)))
    complete = LLMConfig(name="mine", shape={"hidden_size": 64, "num_attention_heads": 4})
    with pytest.raises(UserError, match="intermediate_size"):
        shape_of(replace(complete))


def test_quantised_weights_and_checkpointing_take_less_of_a_gpu() -> None:
    trainable = LLAMA_13B.lora_parameters(8, ["q_proj", "v_proj"])

    step = Step(instruction=40, rows=15, width=64)

    def memory(**settings: Any) -> Memory:
        return training_memory(LLAMA_13B, LoraConfig(), trainable, step, replace(BF16, **settings))

    whole = memory()
    # The token embeddings, 1.3 % of the weights, stay as they are.
    assert memory(weight_bits=8).weights / whole.weights == pytest.approx(0.506, abs=0.001)
    assert memory(weight_bits=4).weights / whole.weights == pytest.approx(0.267, abs=0.001)
    saving = memory(gradient_checkpointing=True)
    assert saving.activations < whole.activations / 10
    assert saving.weights == whole.weights
