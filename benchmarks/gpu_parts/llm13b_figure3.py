"""The step `figure3` of the part `llm13b`: the paper's Figure 3 at its own size, from measured rates."""

from __future__ import annotations

from gpu_parts.bench import Bench, NotMeasuredError
from gpu_parts.llm13b_loaded import subject_of
from gpu_parts.llm13b_rates import chosen, kept, of_kind


def figure3(bench: Bench) -> None:
    """Hours of both methods on the whole of Beauty, from the timed steps and the plan's counts."""
    subject, rates = subject_of(bench), kept(bench)
    missing = [kind for kind in ("sft", "augmentation", "e4srec", "e4srec_inference") if not of_kind(rates, kind)]
    if missing:
        raise NotMeasuredError(f"no rate of {', '.join(missing)} was measured in this run")
    numbers, items, tested = subject.config, subject.interactions.num_items, len(subject.interactions.evaluated_users)
    for way in ("default", "fastest"):
        sft_size, sft_rate = chosen(rates, "sft", "tokens_per_second", way)
        _, item_rate = chosen(rates, "augmentation", "items_per_second", way)
        rival_size, rival_rate = chosen(rates, "e4srec", "tokens_per_second", way)
        _, user_rate = chosen(rates, "e4srec_inference", "users_per_second", way)
        plan = subject.plan_with(sft=sft_size, e4srec=rival_size)
        tuned = numbers.sft.max_epochs * plan.sft["shared"].tokens.computed / sft_rate
        epoch = plan.e4srec["shared"].tokens.computed / rival_rate
        inferred = tested / user_rate
        ours = tuned + items / item_rate
        # Each epoch ends with a validation of all users.
        rivals = numbers.e4srec.max_epochs * (epoch + inferred) + inferred
        bench.say(f"{way}: SFT with {sft_size} users per step, E4SRec with {rival_size} instances per step")
        bench.figure(
            f"{way}_sft", tuned / 3600, "h", planned=numbers.sft.max_epochs * plan.sft["shared"].seconds / 3600
        )
        bench.figure(f"{way}_augmentation", items / item_rate / 3600, "h")
        bench.figure(f"{way}_e4srec_epoch", epoch / 3600, "h", planned=plan.e4srec["shared"].seconds / 3600)
        bench.figure(f"{way}_e4srec_inference", inferred / 3600, "h")
        bench.figure(f"{way}_tslrec_language_model", ours / 3600, "h")
        bench.figure(f"{way}_e4srec", rivals / 3600, "h", epochs=float(numbers.e4srec.max_epochs))
        bench.figure(f"{way}_e4srec_over_tslrec", rivals / ours, "x")
