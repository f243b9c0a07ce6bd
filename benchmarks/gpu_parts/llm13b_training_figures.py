"""The figures of training steps of the part `llm13b`, the SFT's and E4SRec's, beside the plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpu_parts.bench import Bench
from gpu_parts.llm13b_planned import planned_memory, planned_seconds
from gpu_parts.llm13b_rates import keep

if TYPE_CHECKING:
    from gpu_parts.random_llm import Subject
    from gpu_parts.timed_fit import Timed


def tell_training(bench: Bench, subject: Subject, kind: str, timed: Timed) -> None:
    """The figures of a group of training steps.

    Args:
        bench: of the step.
        subject: what is measured.
        kind: `sft` or `e4srec`.
        timed: the group.
    """
    name, rate = timed.group.name, bench.product_rate("bfloat16")
    share = 100 * timed.tflops / rate
    seconds = timed.seconds / timed.steps
    bench.figure(f"{name}_step", seconds, "s", planned=planned_seconds(subject, timed))
    bench.figure(f"{name}_tokens_per_step", timed.cost.computed / timed.steps, "tokens")
    bench.figure(f"{name}_tokens", timed.tokens_per_second, "tokens/s")
    bench.figure(f"{name}_tokens_without_padding", timed.cost.needed / timed.seconds, "tokens/s")
    bench.figure(f"{name}_rate", timed.tflops, "TFLOP/s")
    bench.figure(f"{name}_share_of_product_rate", share, "%", **({"aim": 45.0} if kind == "sft" else {}))
    if bench.on_card:
        memory = planned_memory(
            subject, timed.largest, rival=kind == "e4srec", gradient_checkpointing=timed.group.checkpointing
        )
        bench.figure(f"{name}_peak", timed.card, "GiB", planned=memory.allocated)
    keep(bench, f"{kind}/{name}", {"tokens_per_second": timed.tokens_per_second, "seconds_per_step": seconds})
