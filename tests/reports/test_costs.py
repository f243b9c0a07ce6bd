"""A plan says what a run then does: tokens counted as they are batched, operations as torch counts them."""

from __future__ import annotations

import json
import re
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
from tslrec.data.audit import audit
from tslrec.data.ingest import ingest
from tslrec.data.windows import recent_positions
from tslrec.llm.packing import Packer
from tslrec.llm.shape import Shape, shape_of
from tslrec.llm.tiny import byte_tokenizer, random_llama
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


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Overrides that choose a small data set, in a folder of its own."""
    path = tmp_path / "data.txt"
    path.write_text(
        "".join(f"{user} " + " ".join(str(1 + (user + i) % 9) for i in range(8)) + "\n" for user in range(9))
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TSLREC_CACHE", str(tmp_path / "cache"))
    return [f"data.path={path}", "data.download.sha256=null"]


def printed_plan(overrides: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    main(["plan", *overrides])
    return capsys.readouterr().out


def test_the_plan_of_13b_needs_neither_weights_nor_gpus_and_runs_nothing(
    data: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    printed = printed_plan(["experiment=tslrec_fmlp_beauty", *data], capsys)
    for word in ("12,852,024,320", "E4SRec", "gathered", "augmentation", "estimated", "h100", "(measured)", "PCIe"):
        assert word in printed, word
    assert all(len(line) <= 100 for line in printed.splitlines())
    assert not Path("artifacts").exists()


def test_the_total_is_that_of_the_way_that_runs(data: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    chosen = ["method=tslrec", "data=beauty", "llm=llama2_13b", *data]
    totals = {}
    for way in ("true", "false"):
        printed = printed_plan([*chosen, f"llm.shared_prefix={way}"], capsys)
        (totals[way],) = re.findall(r"([\d,]+)\s+TFLOP,", printed)
    rows = [line.split() for line in printed.splitlines() if "naive" in line][:2]
    naive = sum(float(row[row.index("naive") + 5].replace(",", "")) for row in rows)
    assert float(totals["false"].replace(",", "")) == pytest.approx(naive, abs=1)
    assert float(totals["false"].replace(",", "")) > 1.5 * float(totals["true"].replace(",", ""))


def test_what_bounds_a_phase_is_printed(data: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    offloaded = ["method=tslrec", "data=beauty", "llm=llama2_13b", "trainer=deepspeed_zero3_offload", *data]

    def bound(overrides: list[str]) -> str:
        (line,) = [each for each in printed_plan(overrides, capsys).splitlines() if "SFT, an epoch" in each]
        return line.split()[-1]

    assert bound(offloaded) == "PCIe"
    assert bound([*offloaded, "trainer=gpu"]) == "launches"
    own = "trainer.device={bf16_tflops:800,fp32_tflops:50,memory_gbs:3000}"
    assert bound([*offloaded, "trainer=gpu", own]) == "memory"
    assert bound([*offloaded, "trainer=gpu", "trainer.device={bf16_tflops:1,fp32_tflops:1}"]) == "arithmetic"
    assert bound(["method=tslrec", "data=beauty", "llm=smollm2_135m", "trainer=cpu", *data]) == "arithmetic"


def test_what_does_not_fit_a_device_is_told_with_what_would(
    data: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    chosen = ["method=tslrec", "data=beauty", "llm=llama2_13b", *data]
    small = printed_plan([*chosen, "trainer=gpu", "trainer.device=rtx4090"], capsys)
    told = " ".join(small.split())
    assert "GiB do not fit one rtx4090 (24 GiB): llm.weight_bits=8, or llm.weight_bits=4, or trainer=deepspeed" in told
    assert "augmentation: " in told
    offloaded = printed_plan([*chosen, "trainer=deepspeed_zero3_offload", "trainer.device=rtx4090"], capsys)
    assert "SFT: " not in offloaded
    assert "augmentation: " in offloaded
    assert "do not fit" not in printed_plan([*chosen, "trainer=gpu"], capsys)


def test_an_unknown_device_is_refused_by_every_program(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["plan", "method=tslrec", "trainer.device=abacus"])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: trainer.device=abacus: must be one of a100, cpu, h100")


@pytest.mark.parametrize(
    ("method", "where"),
    [("ci", "choose method=tslrec"), ("ablation_untuned_llm", "the augmentation of method=tslrec alone")],
)
def test_a_method_without_a_training_of_a_language_model_has_no_plan_of_its_own(
    method: str, where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["plan", f"method={method}"])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert where in line


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


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer_config.json"])
def test_a_tokenizer_that_cannot_be_read_is_one_line(
    name: str, data: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "model"
    random_llama({}).save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    (folder / name).write_text("{")
    capsys.readouterr()
    local = ["llm.hub=null", "llm.wheel=null", f"llm.path={folder}"]
    with pytest.raises(SystemExit) as ended:
        main(["plan", "method=tslrec", "data=beauty", "llm=smollm2_135m", *local, *data])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "its tokenizer cannot be read" in line
