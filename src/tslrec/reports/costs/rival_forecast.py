"""Forecasts the cost of LlamaRec, P5 and POD on a data set (`tslrec plan method=llamarec|p5|p5_llm|pod`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tslrec.config import Config
from tslrec.reports.costs.phases import RivalPlan
from tslrec.reports.costs.rival_sizes import llamarec_sizes, p5_sizes, p5_vocabulary, pod_sizes, pod_vocabulary
from tslrec.reports.costs.rivals_on_llm import llamarec_plan, p5_plan
from tslrec.reports.costs.rivals_on_t5 import p5_t5_plan, pod_plan
from tslrec.system.errors import UserError

if TYPE_CHECKING:
    from tslrec.data.interactions import Interactions

METHODS = {"ranker": ("llamarec",), "p5": ("p5", "p5_t5"), "p5_llm": ("p5",), "pod": ("pod",)}
"""What is counted for a method with a stage of this name."""


def counted_for(config: Config) -> tuple[str, ...]:
    """What is counted for the configured method; nothing for one whose language model gives knowledge or vectors."""
    return tuple(name for stage in config.method.stages for name in METHODS.get(stage, ()))


def rival_plans_of(config: Config, names: Sequence[str], seed: int) -> list[RivalPlan]:
    """Reads the data and counts the work of rival methods.

    Args:
        config: gives the data, the methods' numbers, the language models and the device.
        names: keys of `PLANS`.
        seed: draws what is drawn.

    Raises:
        UserError: if the sizes of a language model, the device, the data or their titles cannot be read, or no user
            has two training items.
    """
    from tslrec.data.ingest import ingest

    interactions = ingest(config.data, Path(config.cache))
    if interactions.train_lengths.max() < 2:
        raise UserError(f"{interactions.name}: no user has two training items; give data with longer histories")
    return [PLANS[name](config, interactions, seed) for name in names]


def llamarec_of(config: Config, interactions: Interactions, seed: int) -> RivalPlan:
    """LlamaRec's plan."""
    return llamarec_plan(config, interactions.train_lengths, llamarec_sizes(config, interactions), seed)


def p5_of(config: Config, interactions: Interactions, seed: int) -> RivalPlan:
    """P5's plan in its decoder-only form."""
    return p5_plan(config, interactions.train_lengths, p5_sizes(config, interactions), seed)


def p5_t5_of(config: Config, interactions: Interactions, seed: int) -> RivalPlan:
    """P5's plan on T5."""
    sizes, vocabulary = p5_sizes(config, interactions), p5_vocabulary(config, interactions)
    return p5_t5_plan(config, interactions.train_lengths, sizes, seed, vocabulary)


def pod_of(config: Config, interactions: Interactions, seed: int) -> RivalPlan:
    """POD's plan."""
    sizes, vocabulary = pod_sizes(config, interactions), pod_vocabulary(config)
    return pod_plan(config, interactions.train_lengths, sizes, seed, vocabulary)


PLANS: dict[str, Callable[[Config, Interactions, int], RivalPlan]] = {
    "llamarec": llamarec_of,
    "p5": p5_of,
    "p5_t5": p5_t5_of,
    "pod": pod_of,
}
"""The plan of each method, and of each form of it."""
