"""Forecasts what it costs that a language model reads the items' titles (`tslrec plan method=text`): one pass, once.

Shapes: I items.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from tslrec.config import Config
from tslrec.llm.loading import local_tokenizer
from tslrec.llm.shape import shape_of
from tslrec.reports.costs.memory import inference_memory
from tslrec.reports.costs.phases import Phase
from tslrec.reports.costs.placement import placement_of
from tslrec.reports.costs.rival_sizes import CHARACTERS_PER_TOKEN, titles_of
from tslrec.reports.costs.sampling import sampled_tokens
from tslrec.reports.costs.timing import bound_of, inference_traffic
from tslrec.reports.costs.view import duration
from tslrec.system.device_profiles import profile_of
from tslrec.system.errors import UserError

if TYPE_CHECKING:
    from tslrec.data.interactions import Interactions

PREFIX_TOKENS = 2
"""Tokens before every title, where the tokenizer is not here to count them."""


@dataclass(frozen=True)
class TitlesPlan:
    """The forecast of a pass over the titles.

    Attributes:
        model: the language model.
        parameters: of the language model.
        reading: the pass.
        counted: whether the model's own tokenizer counted the tokens; false: they are estimated.
        memory_gib: memory on one device.
    """

    model: str
    parameters: int
    reading: Phase
    counted: bool
    memory_gib: float


def print_titles_plan(config: Config, seed: int, console: Console) -> None:
    """Reads the data and its titles, and prints the forecast.

    Raises:
        UserError: as `titles_plan`, or if the data cannot be read.
    """
    from tslrec.data.ingest import ingest

    plan = titles_plan(config, ingest(config.data, Path(config.cache)), seed)
    device, reading = profile_of(config.trainer.device), plan.reading
    known = "counted by its tokenizer" if plan.counted else f"estimated, {CHARACTERS_PER_TOKEN} characters each"
    text = (
        f"Reading titles with {plan.model} ({plan.parameters:,} parameters, nothing trained), once: "
        f"{reading.examples:,} titles, {reading.needed:,} tokens ({known}), {reading.tokens:,} with padding, "
        f"{reading.flops / 1e12:,.1f} TFLOP; {duration(reading.seconds)} on {device.title}, bound by "
        f"{reading.bound_by}; {plan.memory_gib:.2f} GiB"
    )
    console.print(text)
    if device.memory_gib is not None and plan.memory_gib > device.memory_gib:
        console.print(
            f"{plan.memory_gib:.1f} GiB do not fit one {device.title} ({device.memory_gib:g} GiB): "
            "llm.weight_bits=8 or 4, or a smaller llm",
        )


def titles_plan(config: Config, interactions: Interactions, seed: int) -> TitlesPlan:
    """Counts the work of the stage `title_states`.

    Args:
        config: gives the titles, the language model and the device.
        interactions: the data set.
        seed: draws the titles that are counted, where there are many.

    Raises:
        UserError: if the data have no titles, their file is of other items, or the model's sizes are not known.
    """
    titles = titles_of(config, interactions)
    if titles is None:
        raise UserError(f"plan: {interactions.name} has no titles; name their file by data.titles=FILE")
    shape, placement, device = shape_of(config.llm), placement_of(config), profile_of(config.trainer.device)
    lengths_I, prefix, counted = title_lengths(config, titles)
    shared = config.llm.shared_prefix
    tokens = sampled_tokens(lengths_I, (prefix, 0), config.item_text.batch_size, seed, shared=shared)
    flops = shape.forward_flops(tokens.computed, tokens.seen)
    moved = inference_traffic(shape, placement, under_strategy=False)
    bound = bound_of(flops, tokens.steps, moved, device, in_16_bits=placement.in_16_bits)
    return TitlesPlan(
        model=config.llm.name,
        parameters=shape.num_parameters,
        reading=Phase(tokens.examples, tokens.needed, tokens.computed, flops, bound.seconds, bound.by),
        counted=counted,
        memory_gib=inference_memory(shape, placement).device,
    )


def title_lengths(config: Config, titles: list[str]) -> tuple[NDArray[np.int64], int, bool]:
    """Tokens of each title, int64 `[I]`, and of what stands before it, and whether the tokenizer counted them.

    Args:
        config: gives the language model and the longest title.
        titles: of the items.
    """
    from tslrec.llm.title_states import tokens_before
    from tslrec.llm.title_tokens import encode_titles

    longest, tokenizer = config.item_text.title_tokens, local_tokenizer(config.llm, Path(config.cache))
    if tokenizer is None:
        characters_I = np.array([len(title) for title in titles], dtype=np.int64)
        return np.clip(-(-characters_I // CHARACTERS_PER_TOKEN), 1, longest), PREFIX_TOKENS, False
    lengths_I = np.diff(encode_titles(tokenizer, ["", *titles], longest).offsets_I)[1:].astype(np.int64)
    return lengths_I, len(tokens_before(tokenizer)), True
