"""`plan=true`: says what the language model of a run would cost, and runs nothing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from tslrec.check import check_data, check_stages
from tslrec.config import Config
from tslrec.errors import UserError
from tslrec.recipes import stage_seed

if TYPE_CHECKING:
    from tslrec.llm.prompt import Prompt
    from tslrec.plan import Plan, PromptTokens

CHARACTERS_PER_TOKEN = 5
"""Of the paper's prompt: 111 characters are 22 tokens of SmolLM2's tokenizer. Where no tokenizer is at hand."""


def print_plan_of(config: Config, console: Console) -> None:
    """Reads the data and prints the plan.

    Raises:
        UserError: see `plan_of`.
    """
    from tslrec.plan_view import print_plan

    print_plan(plan_of(config), config, console)


def plan_of(config: Config) -> Plan:
    """Reads the data and counts what a run would do.

    Raises:
        UserError: if the method has no language model, or its sizes or the data cannot be read.
    """
    from tslrec.ingest import ingest
    from tslrec.plan import make_plan

    check_stages(config)
    check_data(config)
    if "sft" not in config.method.stages:
        raise UserError(f"plan=true: method={config.method.name} runs no language model; choose method=tslrec")
    interactions = ingest(config.data, Path(config.cache))
    prompt, e4srec_prompt, exact = prompt_tokens(config)
    return make_plan(
        config,
        interactions.train_lengths,
        interactions.num_items,
        prompt,
        e4srec_prompt,
        prompts_are_exact=exact,
        seed=stage_seed(config.seed, "sft"),
    )


def prompt_tokens(config: Config) -> tuple[PromptTokens, PromptTokens, bool]:
    """Tokens of the paper's prompt and of E4SRec's, and whether the model's own tokenizer counted them."""
    from tslrec.llm.loading import tokenizer_at_hand
    from tslrec.llm.prompt import (
        E4SREC_INSTRUCTION,
        E4SREC_RESPONSE,
        INSTRUCTION,
        RESPONSE,
        encode_e4srec_prompt,
        encode_prompt,
    )

    tokenizer = tokenizer_at_hand(config.llm, Path(config.cache))
    if tokenizer is not None:
        ours, rivals = encode_prompt(tokenizer, config.preferences.num_clusters), encode_e4srec_prompt(tokenizer)
        return lengths(ours), lengths(rivals), True
    instruction = INSTRUCTION.format(num_clusters=config.preferences.num_clusters)
    return (
        (estimate(instruction) + 1, estimate(RESPONSE)),
        (estimate(E4SREC_INSTRUCTION), estimate(E4SREC_RESPONSE)),
        False,
    )


def lengths(prompt: Prompt) -> PromptTokens:
    return len(prompt.instruction), len(prompt.response)


def estimate(text: str) -> int:
    """Tokens of a text, about."""
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)
