"""What a plan says of activations is what PyTorch saves for the backward pass of a step.

Shapes: B examples, K clusters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tslrec.llm.gradient_checkpointing import checkpoint_layers
from tslrec.llm.packing import PackedExamples
from tslrec.llm.prompt import Prompt
from tslrec.llm.prompted import add_lora
from tslrec.llm.shape import shape_of
from tslrec.llm.tiny import random_llama
from tslrec.reports.costs.activations import Step, kept_bytes
from tslrec.reports.costs.placement import Placement
from tslrec.settings.language_models import LLMConfig, LoraConfig
from tslrec.stages.sft.model import PreferenceLLM

ITEM_SIZE, NUM_CLUSTERS, NUM_ITEMS = 16, 8, 100
INSTRUCTION, RESPONSE = list(range(22)), [1, 2]
MIDDLE = {
    "hidden_size": 256,
    "intermediate_size": 688,
    "num_hidden_layers": 4,
    "num_attention_heads": 8,
    "num_key_value_heads": 8,
}
GROUPED = {**MIDDLE, "num_key_value_heads": 2}
FEED_FORWARD = ("gate_proj", "up_proj", "down_proj")


def made(
    sizes: dict[str, int], lora: LoraConfig, dtype: torch.dtype, *, shared: bool, checkpointing: bool, converted: bool
) -> PreferenceLLM:
    torch.manual_seed(0)
    base = random_llama(sizes).to(dtype)  # type: ignore[arg-type]
    if checkpointing:
        checkpoint_layers(base)
    prompt = Prompt(INSTRUCTION, RESPONSE)
    table_ID = torch.randn(NUM_ITEMS + 1, ITEM_SIZE)
    model = PreferenceLLM(add_lora(base, lora), prompt, table_ID, NUM_CLUSTERS, shared_prefix=shared)
    return model.train().to(dtype if converted else None)


def saved_bytes(model: PreferenceLLM, examples: PackedExamples) -> int:
    """Bytes of all storages that the forward pass saves, those of parameters and buffers left out."""
    known = {each.untyped_storage().data_ptr() for each in [*model.parameters(), *model.buffers()]}
    saved: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        saved.setdefault(tensor.untyped_storage().data_ptr(), tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        loss = model(examples).logits_BK.float().square().sum()
    found = sum(each.untyped_storage().nbytes() for place, each in saved.items() if place not in known)
    # Until here all of them are alive, so no storage was counted in place of another.
    loss.backward()
    return found


def compared(
    sizes: dict[str, int],
    *,
    dtype: str = "float32",
    converted: bool = False,
    shared: bool = True,
    targets: Sequence[str] = ("q_proj", "v_proj"),
    dropout: float = 0.0,
    checkpointing: bool = False,
    layers: int | None = None,
) -> tuple[float, int]:
    """The planned and the saved bytes of a step with 16 users."""
    sizes = {**sizes, "num_hidden_layers": layers or sizes.get("num_hidden_layers", 2)}
    lora = LoraConfig(rank=8, dropout=dropout, targets=list(targets))
    model = made(sizes, lora, getattr(torch, dtype), shared=shared, checkpointing=checkpointing, converted=converted)
    draw = np.random.default_rng(0)
    histories = [draw.integers(1, NUM_ITEMS, size=size) for size in draw.geometric(0.12, 16).clip(max=50)]
    examples = model.packer(histories)
    rows, width = examples.tokens_RT.shape
    placement = Placement(dtype=dtype, gradient_checkpointing=checkpointing)
    step = Step(len(INSTRUCTION), rows, width, shared)
    # On CPUs dropout keeps a mask of the type of its input, on GPUs one byte a number.
    mask_width = placement.width
    shape = shape_of(LLMConfig(name="random", random=sizes))
    return kept_bytes(shape, lora, step, placement, ITEM_SIZE, mask_width), saved_bytes(model, examples)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"sizes": MIDDLE}, id="fp32"),
        pytest.param({"sizes": MIDDLE, "dtype": "bfloat16"}, id="bf16-adapter-fp32"),
        pytest.param({"sizes": MIDDLE, "dtype": "bfloat16", "converted": True}, id="bf16"),
        pytest.param({"sizes": GROUPED, "dtype": "bfloat16", "converted": True}, id="grouped-keys"),
        pytest.param({"sizes": GROUPED, "shared": False}, id="a-prompt-each"),
        pytest.param({"sizes": MIDDLE, "targets": FEED_FORWARD}, id="feed-forward"),
        pytest.param({"sizes": MIDDLE, "dtype": "bfloat16", "targets": FEED_FORWARD, "dropout": 0.05}, id="dropout"),
        pytest.param({"sizes": MIDDLE, "targets": ["q_proj", "k_proj", "v_proj", "o_proj"]}, id="attention"),
        pytest.param({"sizes": {}}, id="tiny"),
        pytest.param({"sizes": {}, "dtype": "bfloat16"}, id="tiny-bf16"),
    ],
)
def test_activations_are_what_pytorch_saves(settings: dict[str, Any]) -> None:
    planned, saved = compared(**settings)
    assert planned == pytest.approx(saved, rel=0.05)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_with_checkpointing_the_inputs_of_the_layers_are_kept_and_one_layer_at_a_time(dtype: str) -> None:
    planned, saved = compared(MIDDLE, dtype=dtype, checkpointing=True)
    more, less = (compared(MIDDLE, dtype=dtype, layers=layers)[1] for layers in (2, 1))
    assert planned == pytest.approx(saved + (more - less), rel=0.05)


def test_a_device_holds_the_activations_of_its_own_rows() -> None:
    whole = Step(instruction=22, rows=8, width=64)
    assert whole.tokens == 22 + 8 * 64
    assert (whole.queries, whole.keys) == (8 * 64, 8 * (22 + 64))
    alone = Step(instruction=22, rows=8, width=64, shared=False)
    assert alone.tokens == alone.queries == alone.keys == 8 * (22 + 64)
