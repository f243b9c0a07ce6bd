"""What the language model will cost, before anything is spent on it: tokens, operations, time and memory.

From the configuration and the data alone; no weights are loaded. The same language model run by E4SRec (one example per
interaction, Li et al. 2023) stands beside it, which is Figure 3 of the paper before it is measured.

Shapes: U users, B examples of a step.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tslrec.config import Config
from tslrec.llm.packing import ROW_LENGTH
from tslrec.llm.shape import Shape, shape_of
from tslrec.rows import side_by_side
from tslrec.sampling import RandomBatches, split_users
from tslrec.windows import recent_positions

TRAINING_PASSES = 2
"""Forward, and backward to the activations: the weights are frozen. LoRA's own products are counted apart. Gradient
checkpointing runs forward once more."""

PromptTokens = tuple[int, int]
"""Of the instruction, and of the response."""


@dataclass(frozen=True)
class Tokens:
    """Tokens of one epoch, or of one pass over a catalogue.

    Attributes:
        examples: sequences that are shown.
        steps: optimizer steps, or batches.
        needed: tokens that are not padding, the instruction once a step where it is shared.
        computed: with padding.
        seen: sum over the computed tokens of how many each attends to.
    """

    examples: int
    steps: int
    needed: int
    computed: int
    seen: float

    @property
    def padding_share(self) -> float:
        return 1 - self.needed / self.computed


@dataclass(frozen=True)
class Work:
    """One way to run something, its operations and how long they take at the rate of the device."""

    tokens: Tokens
    flops: float
    seconds: float


@dataclass(frozen=True)
class Plan:
    """All figures of a plan.

    Attributes:
        shape: sizes of the language model.
        prompt: tokens of the paper's prompt.
        e4srec_prompt: of E4SRec's.
        prompts_are_exact: whether they were counted by the model's own tokenizer, or estimated.
        histogram: users by tokens of their history, as (from, to, users).
        truncated_users: users whose training part is longer than `max_len`.
        truncated_items: interactions of theirs that are not shown.
        trainable: trainable parameters: LoRA, item projection, group head.
        device_tflops: what one device is taken to sustain.
        sft: a pass of the preference SFT over its users, by `shared` and `naive`.
        augmentation: the catalogue, likewise.
        e4srec: an epoch of E4SRec, likewise.
        e4srec_inference: its pass over all users, likewise.
    """

    shape: Shape
    prompt: PromptTokens
    e4srec_prompt: PromptTokens
    prompts_are_exact: bool
    histogram: list[tuple[int, int, int]]
    truncated_users: int
    truncated_items: int
    trainable: int
    device_tflops: float
    sft: dict[str, Work]
    augmentation: dict[str, Work]
    e4srec: dict[str, Work]
    e4srec_inference: dict[str, Work]


def make_plan(
    config: Config,
    train_lengths_U: NDArray[np.int64],
    num_items: int,
    prompt: PromptTokens,
    e4srec_prompt: PromptTokens,
    *,
    prompts_are_exact: bool,
    seed: int,
) -> Plan:
    """Counts what a run would do.

    Args:
        config: of the run.
        train_lengths_U: items of each user's training part.
        num_items: of the catalogue.
        prompt: see `Plan`.
        e4srec_prompt: likewise.
        prompts_are_exact: likewise.
        seed: of the SFT stage, which decides who shares a step.
    """
    shape = shape_of(config.llm)
    shown_U = np.minimum(train_lengths_U, config.training.max_len)
    trained_U, _ = split_users(len(shown_U), config.sft.held_back, seed)
    passes = TRAINING_PASSES + config.llm.gradient_checkpointing
    lora = shape.lora_parameters(config.llm.lora.rank, config.llm.lora.targets)
    heads = (config.model["hidden_size"] + 1 + config.preferences.num_clusters) * shape.hidden_size
    heads += config.preferences.num_clusters
    rate = config.trainer.device_tflops * 1e12

    def work(tokens: dict[str, Tokens], adapter: int, training: bool) -> dict[str, Work]:
        found = {}
        for way, each in tokens.items():
            flops = shape.forward_flops(each.computed, each.seen) * (passes if training else 1)
            flops += (6 if training else 2) * adapter * each.computed
            found[way] = Work(each, flops, flops / rate)
        return found

    rival = config.e4srec
    rivals_adapter = shape.lora_parameters(rival.lora.rank, rival.lora.targets)
    _, instances = recent_positions(train_lengths_U, config.training.max_len)
    tested_U = np.minimum(train_lengths_U + 1, config.training.max_len)
    catalogue = np.ones(num_items, dtype=np.int64)
    augment_batch, batch = config.sft.augment_batch_size, config.sft.batch_size
    return Plan(
        shape=shape,
        prompt=prompt,
        e4srec_prompt=e4srec_prompt,
        prompts_are_exact=prompts_are_exact,
        histogram=histogram(shown_U),
        truncated_users=int((train_lengths_U > shown_U).sum()),
        truncated_items=int((train_lengths_U - shown_U).sum()),
        trainable=lora + heads,
        device_tflops=config.trainer.device_tflops,
        sft=work(both_ways(shown_U[trained_U], prompt, batch, seed), lora, True),
        augmentation=work(both_ways(catalogue, prompt, augment_batch, None), lora, False),
        e4srec=work(both_ways(instances, e4srec_prompt, rival.batch_size, seed), rivals_adapter, True),
        e4srec_inference=work(both_ways(tested_U, e4srec_prompt, rival.eval_batch_size, None), rivals_adapter, False),
    )


def both_ways(lengths: NDArray[np.int64], prompt: PromptTokens, batch_size: int, seed: int | None) -> dict[str, Tokens]:
    """Tokens with the instruction shared and examples packed, and of whole sequences padded to the longest of a batch.

    Args:
        lengths: items of each example.
        prompt: tokens around them.
        batch_size: examples of a step.
        seed: draws the batches; None takes the examples in their order.
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
    for batch in batches:
        mine = suffixes[batch]
        rows, width = side_by_side(mine, ROW_LENGTH).shape
        shared += instruction + rows * width
        seen_shared += instruction * (instruction + 1) / 2 + rows * width * (instruction + width / 2)
        whole = instruction + int(mine.max())
        naive += len(batch) * whole
        seen_naive += len(batch) * whole * (whole + 1) / 2
    count = len(lengths)
    return {
        "shared": Tokens(count, len(batches), needed_suffixes + instruction * len(batches), shared, seen_shared),
        "naive": Tokens(count, len(batches), needed_suffixes + instruction * count, naive, seen_naive),
    }


def histogram(lengths_U: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """Users by the length of their history, in ranges that double (1, 2, 3-4, 5-8, …), those without users left out."""
    found = []
    low = high = 1
    longest = int(lengths_U.max(initial=1))
    while low <= longest:
        high = min(high, longest)
        if users := int(((lengths_U >= low) & (lengths_U <= high)).sum()):
            found.append((low, high, users))
        low, high = high + 1, high * 2
    return found
