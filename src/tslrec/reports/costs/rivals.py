"""Counts the work and memory of the rival methods LlamaRec, P5 and POD, as `work` does that of TSLRec and E4SRec.

It needs the data's histories and sizes alone. Which numbers are assumed is part of what it gives.

Shapes: U users.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from tslrec.config import Config
from tslrec.llm.encoder_decoder import source
from tslrec.llm.shape import shape_of
from tslrec.reports.costs import decoder_beams, encoder_decoder, llamarec, p5, pod
from tslrec.reports.costs.encoder_decoder import Texts
from tslrec.reports.costs.memory import training_memory
from tslrec.reports.costs.placement import placement_of
from tslrec.reports.costs.timing import Traffic, bound_of, inference_traffic, training_traffic
from tslrec.reports.costs.work import TRAINING_PASSES, PromptTokens, Tokens, both_ways
from tslrec.settings.language_models import LoraConfig
from tslrec.system.device_profiles import profile_of

T5_VOCABULARY = 32_128
"""Rows of T5-small's table of tokens."""

SAMPLED = 2**15
"""Texts whose tokens are counted one by one; of more, so many are drawn, and the counts scaled."""

INFERENCE_BATCH = 32
"""Prompts per forward pass of an inference."""


@dataclass(frozen=True)
class Phase:
    """An epoch of a training, or an inference for all users.

    Attributes:
        examples: number of sequences.
        needed: tokens without padding.
        tokens: tokens that are computed, the padding of packed rows included.
        flops: floating-point operations.
        seconds: the time on one device.
        bound_by: what sets the time, see `timing.Bound`.
    """

    examples: int
    needed: int
    tokens: int
    flops: float
    seconds: float
    bound_by: str


@dataclass(frozen=True)
class RivalPlan:
    """The forecast of a method whose language model recommends by itself.

    Attributes:
        title: the method, and the kind of its language model.
        model: the language model.
        parameters: of the language model.
        trainable: number of trainable parameters.
        epoch: an epoch of the training.
        epochs: how many are configured, at most.
        inference: a list for each user, by one ranking protocol.
        memory_gib: memory of the training on one device.
        assumptions: what the counts take for granted.
    """

    title: str
    model: str
    parameters: int
    trainable: int
    epoch: Phase
    epochs: float
    inference: Phase
    memory_gib: float
    assumptions: tuple[str, ...]


def llamarec_plan(
    config: Config, train_lengths_U: NDArray[np.int64], sizes: llamarec.LlamaRecSizes, seed: int
) -> RivalPlan:
    """LlamaRec's ranker on the configured language model; its retriever is small beside it.

    Args:
        config: gives the language model, the device and how the model is held.
        train_lengths_U: length of each user's training part.
        sizes: of the method.
        seed: shuffles the examples.

    Raises:
        UserError: if the sizes of the language model or the device are not known.
    """
    shape = shape_of(config.llm)
    lengths = llamarec.training_lengths(train_lengths_U, sizes)
    tested = llamarec.tested_lengths(train_lengths_U, sizes, retrieved=1.0)
    tokens = sampled_tokens(lengths, sizes.prompt, sizes.batch_size, seed, shared=config.llm.shared_prefix)
    # The answer itself is not read at the test.
    asked = sizes.instruction_tokens, sizes.answer_tokens
    read = sampled_tokens(tested, asked, INFERENCE_BATCH, seed, shared=config.llm.shared_prefix)
    adapter = shape.lora_parameters(sizes.lora.rank, sizes.lora.targets)
    return decoder_plan(
        config,
        title="LlamaRec, ranker",
        lora=sizes.lora,
        trainable=adapter,
        tokens=tokens,
        head=llamarec.head_flops(shape, tokens.examples, training=True),
        inference=(
            read.examples,
            read.needed,
            read.computed,
            shape.forward_flops(read.computed, read.seen)
            + 2 * adapter * read.computed
            + llamarec.head_flops(shape, read.examples, training=False),
            read.steps,
        ),
        epochs=sizes.epochs,
        # ZeRO reads a step in one pass.
        at_once=None if placement_of(config).zero_stage else sizes.at_once,
        assumptions=(
            f"{sizes.title_tokens:.1f} tokens a title ({sizes.titles}), {sizes.mark_tokens} around it, "
            f"{sizes.instruction_tokens} + {sizes.answer_tokens} of the prompt",
            "LlamaRec's inference ranks the candidates of all users; a test needs those whose target was retrieved",
        ),
    )


def p5_plan(config: Config, train_lengths_U: NDArray[np.int64], sizes: p5.P5Sizes, seed: int) -> RivalPlan:
    """P5 in its decoder-only form on the configured language model; the arguments are those of `llamarec_plan`."""
    shape = shape_of(config.llm)
    tasks = p5.training_texts(train_lengths_U, sizes)
    # `Response:` between both, two tokens.
    lengths = np.concatenate([each.sources_B + 2 + each.targets_B for each in tasks])
    tokens = sampled_tokens(lengths, (0, 0), sizes.batch_size, seed, shared=config.llm.shared_prefix)
    adapter = shape.lora_parameters(sizes.lora.rank, sizes.lora.targets)
    table = sizes.lora.rank * (shape.vocab_size + shape.hidden_size)
    tested = p5.tested_texts(train_lengths_U, sizes)
    flops, read = decoder_beams.beam_flops(
        shape, shape.vocab_size, tested.sources_B + 2, sizes.target_tokens, sizes.beams, searches=1
    )
    # The loss is on the answers alone; the frozen head's backward pass costs as much as its forward pass.
    head = 4.0 * shape.vocab_size * shape.hidden_size * float(sum(each.targets_B.sum() for each in tasks))
    return decoder_plan(
        config,
        title="P5, decoder-only",
        lora=sizes.lora,
        trainable=adapter + table,
        tokens=tokens,
        head=head,
        inference=(
            len(tested),
            round(read),
            round(read),
            flops + 2 * adapter * read,
            sizes.target_tokens * -(-len(tested) // INFERENCE_BATCH),
        ),
        epochs=sizes.epochs,
        assumptions=(
            *p5_assumptions(sizes),
            "P5's authors run this form for two epochs on a fifth of the texts, as method=p5_llm does",
        ),
    )


def decoder_plan(
    config: Config,
    *,
    title: str,
    lora: LoraConfig,
    trainable: int,
    tokens: Tokens,
    head: float,
    inference: tuple[int, int, int, float, int],
    epochs: float,
    assumptions: Sequence[str],
    at_once: int | None = None,
) -> RivalPlan:
    """The plan of a method on the configured language model, whose weights are frozen but for LoRA.

    Args:
        config: see `llamarec_plan`.
        title: see `RivalPlan`.
        lora: the adapter.
        trainable: number of trainable parameters.
        tokens: of an epoch.
        head: operations of the logits of an epoch.
        inference: its examples, tokens without and with padding, operations and forward passes.
        epochs: see `RivalPlan`.
        assumptions: see `RivalPlan`.
        at_once: tokens that are held at a time, or a row where that is more; None: those of a whole step.
    """
    step = tokens.largest
    held = step if at_once is None else replace(step, rows=min(step.rows, max(1, at_once // step.width)))
    shape, placement, device = shape_of(config.llm), placement_of(config), profile_of(config.trainer.device)
    adapter = shape.lora_parameters(lora.rank, lora.targets)
    passes = TRAINING_PASSES + config.llm.gradient_checkpointing
    flops = shape.forward_flops(tokens.computed, tokens.seen) * passes + 6 * adapter * tokens.computed + head
    trained = bound_of(flops, tokens.steps, training_traffic(shape, placement), device, in_16_bits=placement.in_16_bits)
    examples, needed, read, spent, steps = inference
    moved = inference_traffic(shape, placement, under_strategy=True)
    asked = bound_of(spent, steps, moved, device, in_16_bits=placement.in_16_bits)
    return RivalPlan(
        title=title,
        model=config.llm.name,
        parameters=shape.num_parameters,
        trainable=trainable,
        epoch=Phase(tokens.examples, tokens.needed, tokens.computed, flops, trained.seconds, trained.by),
        epochs=epochs,
        inference=Phase(examples, needed, read, spent, asked.seconds, asked.by),
        memory_gib=training_memory(shape, lora, trainable, held, placement).device,
        assumptions=tuple(assumptions),
    )


def p5_t5_plan(
    config: Config, train_lengths_U: NDArray[np.int64], sizes: p5.P5Sizes, seed: int, vocabulary: int = T5_VOCABULARY
) -> RivalPlan:
    """P5 on the configured T5; the arguments are those of `llamarec_plan` and `t5_plan`."""
    return t5_plan(
        config,
        title="P5, T5",
        tasks=p5.training_texts(train_lengths_U, sizes),
        tested=p5.tested_texts(train_lengths_U, sizes),
        generated=(sizes.target_tokens, sizes.beams),
        prompt_rows=0,
        batch_size=sizes.batch_size,
        epochs=sizes.epochs,
        assumptions=p5_assumptions(sizes),
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


def p5_assumptions(sizes: p5.P5Sizes) -> tuple[str, ...]:
    """What P5's counts take for granted."""
    return (
        f"{sizes.code_tokens} tokens an item's code, {sizes.user_tokens} a user, "
        f"{sizes.template_tokens} words a template",
    )


def sampled_tokens(
    lengths: NDArray[np.int64], prompt: PromptTokens, batch_size: int, seed: int, *, shared: bool
) -> Tokens:
    """The tokens of one pass over examples, counted on a random part of them where there are many.

    Args:
        lengths: tokens of each example between the parts of the prompt.
        prompt: tokens of the instruction, which all examples share, and of what follows them.
        batch_size: examples per step.
        seed: draws the part, and shuffles it into batches.
        shared: whether the instruction runs once per step and examples share rows.
    """
    count = len(lengths)
    if count > SAMPLED:
        lengths = np.random.default_rng(seed).choice(lengths, SAMPLED, replace=False)
    found = both_ways(lengths, prompt, batch_size, seed)["shared" if shared else "naive"]
    scale = count / len(lengths)
    return Tokens(
        examples=count,
        steps=-(-count // batch_size),
        needed=round(found.needed * scale),
        computed=round(found.computed * scale),
        seen=found.seen * scale,
        largest=found.largest,
    )
