"""Counts the work and memory of LlamaRec and P5 on the configured language model, as `work` does that of TSLRec.

It needs the data's histories and sizes alone. Which numbers are assumed is part of what it gives.

Shapes: U users.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from tslrec.config import Config
from tslrec.llm.shape import shape_of
from tslrec.reports.costs import decoder_beams, llamarec, p5
from tslrec.reports.costs.memory import training_memory
from tslrec.reports.costs.phases import INFERENCE_BATCH, Phase, RivalPlan
from tslrec.reports.costs.placement import placement_of
from tslrec.reports.costs.sampling import sampled_tokens
from tslrec.reports.costs.timing import bound_of, inference_traffic, training_traffic
from tslrec.reports.costs.work import TRAINING_PASSES, Tokens
from tslrec.settings.language_models import LoraConfig
from tslrec.system.device_profiles import profile_of


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
            *p5.assumptions(sizes),
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
    parts = 2 if config.llm.shared_prefix else 1
    moves, in_16_bits = training_traffic(shape, placement), placement.in_16_bits
    trained = bound_of(flops, tokens.steps, moves, device, in_16_bits=in_16_bits, parts=parts)
    examples, needed, read, spent, steps = inference
    moved = inference_traffic(shape, placement, under_strategy=True)
    asked = bound_of(spent, steps, moved, device, in_16_bits=in_16_bits, parts=parts)
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
