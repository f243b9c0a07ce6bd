"""Counts the work of a run's language model in advance: tokens, operations and time.

It uses the configuration and the data alone; no weights are loaded. E4SRec (Li et al. 2023) with the same language
model, which needs one example per interaction, is counted too: that is the comparison of the paper's Figure 3.

Shapes: U users.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tslrec.config import Config
from tslrec.data.batching import RandomBatches, drawn_share, split_users
from tslrec.data.packing import pack_rows
from tslrec.data.windows import recent_positions
from tslrec.llm.packing import ROW_LENGTH
from tslrec.llm.shape import Shape, shape_of
from tslrec.reports.costs.activations import Step
from tslrec.reports.costs.placement import Placement, placement_of
from tslrec.reports.costs.timing import Traffic, bound_of, inference_traffic, training_traffic
from tslrec.system.device_profiles import DeviceProfile, profile_of

TRAINING_PASSES = 2
"""A training step costs as much as so many forward passes: one forward, one backward to the activations.

The weights are frozen, so no gradients of weights are computed; LoRA's products are counted apart. Gradient
checkpointing adds one forward pass.
"""

PromptTokens = tuple[int, int]
"""Number of tokens of the instruction and of the response."""


class ItemLength(NamedTuple):
    """The length of an item in a prompt.

    Attributes:
        mean: its tokens, over the items.
        known: how it is known.
    """

    mean: float
    known: str


ONE_TOKEN = ItemLength(1.0, "an embedding is one token")
"""The length of an item that is its embedding."""


@dataclass(frozen=True)
class Tokens:
    """Tokens of one epoch, or of one pass over a catalogue.

    Attributes:
        examples: number of sequences.
        steps: optimizer steps in training, batches in inference.
        needed: tokens without padding; a shared instruction counts once per step.
        computed: tokens with padding.
        seen: sum over the computed tokens of the number of tokens that each attends to.
        largest: the step with the most tokens.
    """

    examples: int
    steps: int
    needed: int
    computed: int
    seen: float
    largest: Step

    @property
    def padding_share(self) -> float:
        """The share of the computed tokens that is padding."""
        return 1 - self.needed / self.computed


@dataclass(frozen=True)
class Work:
    """The work of one phase run in one way.

    Attributes:
        tokens: its tokens.
        flops: floating-point operations.
        seconds: the time on one device.
        bound_by: what sets the time: `arithmetic`, `memory`, `PCIe` or `launches`.
    """

    tokens: Tokens
    flops: float
    seconds: float
    bound_by: str


@dataclass(frozen=True)
class Plan:
    """The forecast of a run. The work of each phase is given in two ways, see `both_ways`.

    Attributes:
        shape: sizes of the language model.
        prompt: tokens of the paper's prompt.
        e4srec_prompt: tokens of E4SRec's prompt.
        prompts_are_exact: whether the model's own tokenizer counted the prompts; false: they are estimated.
        histogram: number of users by items shown, as (from, to, users).
        truncated_users: users whose training part is longer than `max_len`.
        truncated_items: their interactions that are not shown.
        num_items: number of items in the catalogue.
        trainable: number of trainable parameters: LoRA, item projection, group head.
        e4srec_trainable: E4SRec's: its LoRA, item projection, item head.
        placement: how the language model is held while it trains.
        device: the profile that times and memory are for.
        sft: an epoch of the preference SFT.
        augmentation: the augmentation of the whole catalogue.
        e4srec: an epoch of E4SRec, over the share of its instances that it trains on.
        e4srec_inference: E4SRec's inference for all users.
        items: how many tokens an item takes in the SFT and the augmentation.
    """

    shape: Shape
    prompt: PromptTokens
    e4srec_prompt: PromptTokens
    prompts_are_exact: bool
    histogram: list[tuple[int, int, int]]
    truncated_users: int
    truncated_items: int
    num_items: int
    trainable: int
    e4srec_trainable: int
    placement: Placement
    device: DeviceProfile
    sft: dict[str, Work]
    augmentation: dict[str, Work]
    e4srec: dict[str, Work]
    e4srec_inference: dict[str, Work]
    items: ItemLength = ONE_TOKEN


def make_plan(
    config: Config,
    train_lengths_U: NDArray[np.int64],
    num_items: int,
    prompt: PromptTokens,
    e4srec_prompt: PromptTokens,
    *,
    prompts_are_exact: bool,
    seed: int,
    items: ItemLength = ONE_TOKEN,
) -> Plan:
    """Counts the work of a run.

    Args:
        config: the run's configuration.
        train_lengths_U: number of items in each user's training part.
        num_items: number of items in the catalogue.
        prompt: see `Plan`.
        e4srec_prompt: see `Plan`.
        prompts_are_exact: see `Plan`.
        seed: the seed of the SFT stage, which determines the batches.
        items: see `Plan`.

    Raises:
        UserError: if the sizes of the language model or the device are not known.
    """
    shape, placement, device = shape_of(config.llm), placement_of(config), profile_of(config.trainer.device)
    shown_U = np.minimum(train_lengths_U, config.training.max_len)
    trained_U, _ = split_users(len(shown_U), config.sft.held_back, seed)
    lora = shape.lora_parameters(config.llm.lora.rank, config.llm.lora.targets)
    projection = (config.model["hidden_size"] + 1) * shape.hidden_size
    reads_embeddings = config.sft.item_input != "title"
    group_head = config.preferences.num_clusters * (shape.hidden_size + 1)
    passes = TRAINING_PASSES + config.llm.gradient_checkpointing
    in_training = training_traffic(shape, placement)
    in_augmentation = inference_traffic(shape, placement, under_strategy=False)
    in_evaluation = inference_traffic(shape, placement, under_strategy=True)

    def work(tokens: dict[str, Tokens], adapter: int, traffic: Traffic, *, training: bool) -> dict[str, Work]:
        found = {}
        for way, each in tokens.items():
            flops = shape.forward_flops(each.computed, each.seen) * (passes if training else 1)
            flops += (6 if training else 2) * adapter * each.computed
            # An augmentation's shared prompt runs once, not in every batch.
            parts = 2 if way == "shared" and traffic is not in_augmentation else 1
            bound = bound_of(flops, each.steps, traffic, device, in_16_bits=placement.in_16_bits, parts=parts)
            found[way] = Work(each, flops, bound.seconds, bound.by)
        return found

    rival = config.e4srec
    rivals_adapter = shape.lora_parameters(rival.lora.rank, rival.lora.targets)
    _, instances = recent_positions(train_lengths_U, config.training.max_len)
    instances = instances[drawn_share(len(instances), rival.share, seed)]
    tested_U = np.minimum(train_lengths_U + 1, config.training.max_len)
    read_U, catalogue = tokens_of(shown_U, items), tokens_of(np.ones(num_items, dtype=np.int64), items)
    augment_batch, batch = config.sft.augment_batch_size, config.sft.batch_size
    return Plan(
        shape=shape,
        prompt=prompt,
        e4srec_prompt=e4srec_prompt,
        prompts_are_exact=prompts_are_exact,
        histogram=histogram(shown_U),
        truncated_users=int((train_lengths_U > shown_U).sum()),
        truncated_items=int((train_lengths_U - shown_U).sum()),
        num_items=num_items,
        trainable=lora + reads_embeddings * projection + group_head,
        e4srec_trainable=rivals_adapter + projection + (num_items + 1) * shape.hidden_size,
        placement=placement,
        device=device,
        sft=work(both_ways(read_U[trained_U], prompt, batch, seed), lora, in_training, training=True),
        augmentation=work(both_ways(catalogue, prompt, augment_batch, None), lora, in_augmentation, training=False),
        e4srec=work(
            both_ways(instances, e4srec_prompt, rival.batch_size, seed), rivals_adapter, in_training, training=True
        ),
        e4srec_inference=work(
            both_ways(tested_U, e4srec_prompt, rival.eval_batch_size, None),
            rivals_adapter,
            in_evaluation,
            training=False,
        ),
        items=items,
    )


def tokens_of(shown: NDArray[np.int64], items: ItemLength) -> NDArray[np.int64]:
    """The tokens of so many items `[N]`, to the nearest whole one."""
    return np.rint(shown * items.mean).astype(np.int64)


def both_ways(lengths: NDArray[np.int64], prompt: PromptTokens, batch_size: int, seed: int | None) -> dict[str, Tokens]:
    """Counts tokens for both ways to run the language model.

    `shared` runs the instruction once per step and packs several examples into a row; `naive` runs a whole prompt per
    example, padded to the longest of the batch.

    Args:
        lengths: tokens of each example's items.
        prompt: tokens of the prompt around the items.
        batch_size: examples per step.
        seed: shuffles the examples into batches; None: batches follow the given order.
    """
    instruction, response = prompt
    order = np.arange(len(lengths))
    batches: list[NDArray[np.int64]] = [order[i : i + batch_size] for i in range(0, len(order), batch_size)]
    if seed is not None:
        batches = list(RandomBatches(len(lengths), batch_size, seed))
    suffixes = lengths + response
    needed_suffixes = int(suffixes.sum())
    shared = naive = 0
    seen_shared = seen_naive = 0.0
    largest = Step(instruction, 0, 0)
    largest_naive = Step(instruction, 0, 0, shared=False)
    for batch in batches:
        mine = suffixes[batch]
        rows, width = pack_rows(mine, ROW_LENGTH).shape
        shared += instruction + rows * width
        seen_shared += instruction * (instruction + 1) / 2 + rows * width * (instruction + width / 2)
        whole = instruction + int(mine.max())
        largest = max(largest, Step(instruction, rows, width), key=step_tokens)
        naive += len(batch) * whole
        seen_naive += len(batch) * whole * (whole + 1) / 2
        alone = Step(instruction, len(batch), int(mine.max()), shared=False)
        largest_naive = max(largest_naive, alone, key=step_tokens)
    count = len(lengths)
    needed_shared, needed_naive = (needed_suffixes + instruction * each for each in (len(batches), count))
    return {
        "shared": Tokens(count, len(batches), needed_shared, shared, seen_shared, largest),
        "naive": Tokens(count, len(batches), needed_naive, naive, seen_naive, largest_naive),
    }


def step_tokens(step: Step) -> float:
    """The tokens of a step."""
    return step.tokens


def histogram(lengths_U: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """The number of users per range of history lengths (1, 2, 3–4, 5–8, …), as (from, to, users); none is empty."""
    found = []
    low = high = 1
    longest = int(lengths_U.max(initial=1))
    while low <= longest:
        high = min(high, longest)
        if users := int(((lengths_U >= low) & (lengths_U <= high)).sum()):
            found.append((low, high, users))
        low, high = high + 1, high * 2
    return found
