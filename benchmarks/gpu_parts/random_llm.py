"""Llama-2-13B's shape with random weights, and Beauty's histories: what the part `llm13b` measures with.

What weights and embeddings hold costs nothing, so no file is read but the interactions. There is no tokenizer either:
the prompts have as many random tokens as `tslrec plan` estimates without one.

Shapes: I items (row 0 is padding), D hidden size of the backbone, U users, K clusters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gpu_parts.bench import Bench, NotMeasuredError
from growth import market
from tslrec.config import Config
from tslrec.data.interactions import Interactions
from tslrec.llm.packing import PackedExamples
from tslrec.llm.prompt import Prompt
from tslrec.llm.prompted import add_lora
from tslrec.llm.shape import Shape
from tslrec.pipeline.composition import compose_overrides
from tslrec.reports.costs.activations import Step as PlannedStep
from tslrec.reports.costs.forecast import prompt_tokens
from tslrec.reports.costs.work import TRAINING_PASSES, Plan, make_plan
from tslrec.stages.e4srec.model import NextItemLLM
from tslrec.stages.sft.model import PreferenceLLM
from tslrec.system.device_profiles import DEVICES
from tslrec.training.deepspeed_zero import gathered

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SEED = 0
OVERRIDES = ("data=beauty", "llm=llama2_13b", "preset=paper", "trainer=gpu")
TINY_SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 160,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "vocab_size": 128,
}


@dataclass(frozen=True)
class Subject:
    """What is measured.

    Attributes:
        config: the paper's run on one GPU.
        shape: of the language model.
        interactions: the data set.
        prompt: the paper's, random tokens.
        rival_prompt: E4SRec's, random tokens.
        table_ID: item embeddings, random.
        targets_UK: preferences, random.
        plan: what `tslrec plan` counts for this run.
    """

    config: Config
    shape: Shape
    interactions: Interactions
    prompt: Prompt
    rival_prompt: Prompt
    table_ID: Tensor
    targets_UK: NDArray[np.float32]
    plan: Plan

    def plan_with(self, *, sft: int | None = None, augment: int | None = None, e4srec: int | None = None) -> Plan:
        """The plan with other numbers of examples per step; None: the configuration's."""
        config = compose(tiny=self.shape.vocab_size == TINY_SHAPE["vocab_size"], device=self.config.trainer.device)
        config.sft.batch_size = sft or config.sft.batch_size
        config.sft.augment_batch_size = augment or config.sft.augment_batch_size
        config.e4srec.batch_size = e4srec or config.e4srec.batch_size
        return plan_of(config, self.interactions)


def compose(*, tiny: bool, device: str) -> Config:
    """The paper's run on one GPU, of a kind that `trainer.device` names; in a rehearsal with a tiny language model."""
    config = compose_overrides([*OVERRIDES, f"trainer.device={device}"])
    if tiny:
        config.llm.shape = dict(TINY_SHAPE)
        config.model["hidden_size"] = 16
    return config


def make_subject(bench: Bench) -> Subject:
    """Reads the interactions and draws what is random.

    Raises:
        NotMeasuredError: if the interactions are not there.
    """
    config = compose(tiny=bench.rehearse, device=device_profile(bench))
    interactions = read_interactions(bench)
    plan = plan_of(config, interactions)
    draw = np.random.default_rng(SEED)
    vocabulary = plan.shape.vocab_size

    def prompt(lengths: tuple[int, int]) -> Prompt:
        instruction, response = (draw.integers(1, vocabulary, length).tolist() for length in lengths)
        return Prompt(instruction, response)

    clusters = config.preferences.num_clusters
    table_ID = torch.randn(
        interactions.num_items + 1, config.model["hidden_size"], generator=torch.Generator().manual_seed(SEED)
    )
    targets_UK = draw.dirichlet(np.ones(clusters), interactions.num_users).astype(np.float32)
    return Subject(
        config,
        plan.shape,
        interactions,
        prompt(plan.prompt),
        prompt(plan.e4srec_prompt),
        table_ID,
        targets_UK,
        plan,
    )


def device_profile(bench: Bench) -> str:
    """The name of the card's profile in `tslrec plan`; the H100's for a card that has none."""
    if not bench.on_card:
        return "h100"
    card = torch.cuda.get_device_name().lower()
    return next((name for name in DEVICES if name in card), "h100")


def read_interactions(bench: Bench) -> Interactions:
    """Beauty; in a rehearsal a small generated market."""
    if bench.rehearse:
        return market(1, users=150, items=80)
    path = bench.data / "beauty" / "beauty.txt"
    if not path.is_file():
        raise NotMeasuredError(f"{path} is not here")
    from side_tslrec import load_file

    return load_file("beauty", path)


def plan_of(config: Config, interactions: Interactions) -> Plan:
    """What `tslrec plan` counts."""
    ours, rivals, exact = prompt_tokens(config)
    return make_plan(
        config,
        interactions.train_lengths,
        interactions.num_items,
        ours,
        rivals,
        prompts_are_exact=exact,
        seed=SEED,
    )


def random_base(shape: Shape, device: torch.device | None) -> PreTrainedModel:
    """A Llama in bfloat16 with random weights.

    Args:
        shape: its sizes.
        device: where it is made and its weights are drawn; None: where the strategy wants it. Under ZeRO-3,
            transformers partitions each module as it makes it, and leaves the weights to be filled.
    """
    from transformers import AutoModel, LlamaConfig

    sizes: dict[str, Any] = {
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_hidden_layers,
        "num_attention_heads": shape.num_attention_heads,
        "num_key_value_heads": shape.num_key_value_heads,
        "head_dim": shape.head_dim,
        "max_position_embeddings": 4096,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    config = LlamaConfig(**sizes)
    made: dict[str, Any] = {"dtype": torch.bfloat16, "attn_implementation": "sdpa"}
    if device is None:
        partitioned: PreTrainedModel = AutoModel.from_config(config, **made)
        fill(partitioned)
        return partitioned
    with device:
        whole: PreTrainedModel = AutoModel.from_config(config, **made)
    return whole


@torch.no_grad()
def fill(base: PreTrainedModel) -> None:
    """Gives this process's part of each weight random numbers, drawn once on its GPU: a CPU would take minutes."""
    shares = [getattr(each, "ds_tensor", each) for each in base.parameters()]
    device = "cuda" if torch.cuda.is_available() else "cpu"
    numbers = torch.empty(max(each.numel() for each in shares), dtype=torch.bfloat16, device=device).normal_(std=0.02)
    for parameter, share in zip(base.parameters(), shares, strict=True):
        dimensions = len(getattr(parameter, "ds_shape", parameter.shape))
        if dimensions == 1:
            share.fill_(1.0)
        else:
            share.view(-1).copy_(numbers[: share.numel()])


def preference_model(subject: Subject, base: PreTrainedModel) -> PreferenceLLM:
    """The model of the SFT and of the augmentation around a base model."""
    with gathered(base.get_input_embeddings().parameters()):
        return PreferenceLLM(
            add_lora(base, subject.config.llm.lora),
            subject.prompt,
            subject.table_ID,
            subject.config.preferences.num_clusters,
        )


def next_item_model(subject: Subject, base: PreTrainedModel) -> NextItemLLM:
    """E4SRec's model around a base model."""
    return NextItemLLM(add_lora(base, subject.config.e4srec.lora), subject.rival_prompt, subject.table_ID)


@dataclass(frozen=True)
class Cost:
    """What a batch costs.

    Attributes:
        computed: tokens, padding and the instruction included.
        needed: tokens without padding.
        flops: floating-point operations, counted as `tslrec plan` does.
        largest: the batch; of several, the one with the most tokens.
    """

    computed: int
    needed: int
    flops: float
    largest: PlannedStep

    def __add__(self, other: Cost) -> Cost:
        largest = max(self.largest, other.largest, key=lambda step: step.tokens)
        return Cost(self.computed + other.computed, self.needed + other.needed, self.flops + other.flops, largest)


def cost_of(
    shape: Shape,
    examples: PackedExamples,
    instruction: int,
    adapter: int,
    *,
    training: bool,
    checkpointing: bool = False,
) -> Cost:
    """The cost of packed examples that share an instruction.

    Args:
        shape: of the language model.
        examples: on the CPU.
        instruction: its tokens; 0 if it was run before.
        adapter: parameters of LoRA.
        training: whether gradients are computed.
        checkpointing: whether activations are computed again in the backward pass.
    """
    rows, width = examples.tokens_RT.shape
    computed = instruction + rows * width
    seen = instruction * (instruction + 1) / 2 + rows * width * (instruction + width / 2)
    passes = TRAINING_PASSES + checkpointing if training else 1
    flops = shape.forward_flops(computed, seen) * passes + (6 if training else 2) * adapter * computed
    return Cost(computed, instruction + examples.num_tokens, flops, PlannedStep(instruction, rows, width))


def adapter_parameters(subject: Subject, *, rival: bool = False) -> int:
    """Parameters of LoRA: of the SFT, or of E4SRec."""
    lora = subject.config.e4srec.lora if rival else subject.config.llm.lora
    return subject.shape.lora_parameters(lora.rank, lora.targets)


def shape_gib(subject: Subject) -> float:
    """GiB of the frozen weights in bfloat16."""
    return subject.shape.num_parameters * 2 / 2**30
