"""Forecasts the cost of a run's language model from the data and the model's sizes alone (`tslrec plan`)."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from tslrec.config import Config
from tslrec.llm.loading import local_tokenizer
from tslrec.pipeline.check import check_data
from tslrec.pipeline.check_method import check_stages
from tslrec.pipeline.recipes import stage_seed
from tslrec.system.errors import UserError

if TYPE_CHECKING:
    from tslrec.llm.prompt import Prompt
    from tslrec.reports.costs.work import Plan, PromptTokens

CHARACTERS_PER_TOKEN = 5
"""Used where no tokenizer is available. The paper's prompt has 111 characters and 22 tokens of SmolLM2's tokenizer."""


def print_plan_of(config: Config, console: Console) -> None:
    """Reads the data and prints the plan.

    Raises:
        UserError: as `plan_of`.
    """
    from tslrec.reports.costs.rival_forecast import counted_for, rival_plans_of
    from tslrec.reports.costs.rival_view import print_rivals
    from tslrec.reports.costs.titles import print_titles_plan
    from tslrec.reports.costs.view import print_plan

    if rivals := counted_for(config):
        check_stages(config)
        check_data(config)
        print_rivals(rival_plans_of(config, rivals, stage_seed(config.seed, "sft")), config, console)
    elif "title_states" in config.method.stages:
        check_stages(config)
        check_data(config)
        print_titles_plan(config, stage_seed(config.seed, "title_states"), console)
    else:
        print_plan(plan_of(config), config, console)


def plan_of(config: Config) -> Plan:
    """Reads the data and counts the work of a run.

    Raises:
        UserError: if the method runs no language model, or the model's sizes or the data cannot be read.
    """
    from tslrec.data.ingest import ingest
    from tslrec.reports.costs.item_tokens import item_length
    from tslrec.reports.costs.work import make_plan

    check_stages(config)
    check_data(config)
    name = config.method.name
    if "untuned_llm" in config.method.stages:
        raise UserError(f"plan: of method={name} the language model's work is the augmentation of method=tslrec alone")
    if "e4srec" in config.method.stages:
        raise UserError(f"plan: the work of method={name} stands beside the SFT's; choose method=tslrec")
    if "sft" not in config.method.stages:
        raise UserError(f"plan: method={name} runs no language model; choose method=tslrec")
    interactions = ingest(config.data, Path(config.cache))
    tokenizer = local_tokenizer(config.llm, Path(config.cache)) if config.sft.reads_titles else None
    prompt, e4srec_prompt, exact = prompt_tokens(config)
    return make_plan(
        config,
        interactions.train_lengths,
        interactions.num_items,
        prompt,
        e4srec_prompt,
        prompts_are_exact=exact,
        seed=stage_seed(config.seed, "sft"),
        items=item_length(config, interactions, tokenizer),
    )


def prompt_tokens(config: Config) -> tuple[PromptTokens, PromptTokens, bool]:
    """Token counts of the paper's prompt and of E4SRec's, and whether they are exact.

    Without the model's own tokenizer they are estimated from the number of characters.
    """
    from tslrec.stages.e4srec.prompt import E4SREC_INSTRUCTION, E4SREC_RESPONSE, encode_e4srec_prompt
    from tslrec.stages.sft.prompt import INSTRUCTION, RESPONSE, encode_prompt

    tokenizer = local_tokenizer(config.llm, Path(config.cache))
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
    """The token counts of an encoded prompt."""
    return len(prompt.instruction), len(prompt.response)


def estimate(text: str) -> int:
    """The estimated number of tokens of a text."""
    return math.ceil(len(text) / CHARACTERS_PER_TOKEN)
