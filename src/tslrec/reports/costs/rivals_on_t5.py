"""Counts the work and memory of P5 and POD on the configured T5, as `rivals_on_llm` does that of other rivals.

Shapes: U users.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tslrec.config import Config
from tslrec.llm.encoder_decoder import source
from tslrec.reports.costs import encoder_decoder, p5, pod
from tslrec.reports.costs.encoder_decoder import Texts
from tslrec.reports.costs.phases import INFERENCE_BATCH, Phase, RivalPlan
from tslrec.reports.costs.sampling import SAMPLED
from tslrec.reports.costs.timing import Traffic, bound_of
from tslrec.system.device_profiles import profile_of

T5_VOCABULARY = 32_128
"""Rows of T5-small's table of tokens."""


def p5_t5_plan(
    config: Config, train_lengths_U: NDArray[np.int64], sizes: p5.P5Sizes, seed: int, vocabulary: int = T5_VOCABULARY
) -> RivalPlan:
    """P5 on the configured T5; the arguments are those of `rivals_on_llm.llamarec_plan` and `t5_plan`."""
    return t5_plan(
        config,
        title="P5, T5",
        tasks=p5.training_texts(train_lengths_U, sizes),
        tested=p5.tested_texts(train_lengths_U, sizes),
        generated=(sizes.target_tokens, sizes.beams),
        prompt_rows=0,
        batch_size=sizes.batch_size,
        epochs=sizes.epochs,
        assumptions=p5.assumptions(sizes),
        seed=seed,
        vocabulary=vocabulary,
    )


def pod_plan(
    config: Config, train_lengths_U: NDArray[np.int64], sizes: pod.PODSizes, seed: int, vocabulary: int = T5_VOCABULARY
) -> RivalPlan:
    """POD on the configured T5; the arguments are those of `p5_t5_plan`."""
    return t5_plan(
        config,
        title="POD, T5",
        tasks=pod.training_texts(train_lengths_U, sizes, seed),
        tested=pod.tested_texts(train_lengths_U, sizes),
        generated=(pod.target_tokens(sizes), sizes.beams),
        prompt_rows=sizes.prompt_rows,
        batch_size=sizes.batch_size,
        epochs=sizes.epochs,
        assumptions=(
            f"{sizes.item_number_tokens:.1f} tokens an item's number, {sizes.user_number_tokens:.1f} a user's",
            "POD has no task of explaining, for there are no reviews",
            "POD stops early: the released runs took 22 to 24 epochs",
        ),
        seed=seed,
        vocabulary=vocabulary,
    )


def t5_plan(
    config: Config,
    *,
    title: str,
    tasks: Sequence[Texts],
    tested: Texts,
    generated: tuple[int, int],
    prompt_rows: int,
    batch_size: int,
    epochs: float,
    assumptions: Sequence[str],
    seed: int,
    vocabulary: int,
) -> RivalPlan:
    """The plan of a method on the configured T5, which is trained as a whole, in float32, its sources packed.

    Args:
        config: gives the language model and the device.
        title: see `RivalPlan`.
        tasks: the texts of an epoch, by task.
        tested: the sources of the inference.
        generated: tokens of an answer, and beams.
        prompt_rows: number of prompt vectors.
        batch_size: texts per optimizer step, all of one task.
        epochs: see `RivalPlan`.
        assumptions: see `RivalPlan`.
        seed: shuffles the texts.
        vocabulary: the model's tokens.

    Raises:
        UserError: if the sizes of the T5 or of the device are not known.
    """
    shape, device = source.shape_of(config.t5), profile_of(config.trainer.device)
    parameters = encoder_decoder.num_parameters(shape, vocabulary, prompt_rows, config.t5.whole_words)
    weights = parameters * encoder_decoder.WIDTH
    passes = encoder_decoder.TRAINING_PASSES
    flops = passes * sum(encoder_decoder.forward_flops(shape, vocabulary, each) for each in tasks)
    steps = sum(-(-len(each) // batch_size) for each in tasks)
    length, beams = generated
    searched = encoder_decoder.beam_flops(shape, vocabulary, tested.sources_B, length, beams, searches=1)
    rounds = length * -(-len(tested) // INFERENCE_BATCH)
    trained = bound_of(flops, steps, Traffic(passes * weights, 0.0), device, in_16_bits=False)
    asked = bound_of(searched, rounds, Traffic(weights, 0.0), device, in_16_bits=False)
    draw = np.random.default_rng(seed)
    largest = max((longest_step(each, batch_size, draw) for each in tasks if len(each)), key=lambda texts: texts.tokens)
    total = sum(each.tokens for each in tasks)
    read = int(tested.sources_B.sum()) + len(tested) * (1 + beams * (length - 1))
    return RivalPlan(
        title=title,
        model=f"T5-{config.t5.name}" if config.t5.path is None else f"the T5 in {config.t5.path}",
        parameters=parameters,
        trainable=parameters,
        epoch=Phase(sum(map(len, tasks)), total, total, flops, trained.seconds, trained.by),
        epochs=epochs,
        inference=Phase(len(tested), read, read, searched, asked.seconds, asked.by),
        memory_gib=encoder_decoder.memory_gib(shape, vocabulary, parameters, largest),
        assumptions=(*assumptions, f"{title.partition(',')[0]} has a vocabulary of {vocabulary:,} tokens"),
    )


def longest_step(texts: Texts, batch_size: int, draw: np.random.Generator) -> Texts:
    """The step with the most tokens of one pass over at most `SAMPLED` texts."""
    order = draw.permutation(len(texts))[:SAMPLED]
    steps = [order[begin : begin + batch_size] for begin in range(0, len(order), batch_size)]
    return max((Texts(texts.sources_B[step], texts.targets_B[step]) for step in steps), key=lambda each: each.tokens)
