"""Times our training steps of P5 and POD: packing, forward and backward pass, and AdamW. Prints one JSON line."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from rivals.authors_t5 import show, time_steps
from rivals.t5_batches import (
    EPSILON,
    LARGEST_NORM,
    LEARNING_RATE,
    NUM_TASKS,
    PROMPT_VECTORS,
    WEIGHT_DECAY,
    T5Batch,
    T5Case,
    load_case,
    parse_side,
)
from tslrec.llm.encoder_decoder.building import build
from tslrec.llm.encoder_decoder.optimizing import adamw
from tslrec.llm.encoder_decoder.packing import Packer
from tslrec.settings.language_models import EncoderDecoderConfig
from tslrec.system.memory import keep_freed_memory, use_large_pages


def our_model(case: T5Case, method: str) -> nn.Module:
    """Our T5 with random weights."""
    prompts = NUM_TASKS * PROMPT_VECTORS if method == "pod" else 0
    return build(EncoderDecoderConfig(**case.sizes), case.vocabulary, num_prompts=prompts)  # type: ignore[arg-type]


def stepper(model: nn.Module, method: str) -> Callable[[T5Batch], float]:
    """What an optimizer step does; POD's clean loss counts no padding."""
    is_pod = method == "pod"
    packer = Packer(num_prompts=PROMPT_VECTORS, loss_by_rows=False) if is_pod else Packer()
    optimizer = adamw(model, learning_rate=LEARNING_RATE[method], epsilon=EPSILON[method], weight_decay=WEIGHT_DECAY)

    def step(batch: T5Batch) -> float:
        tasks = [batch.task] * len(batch.tokens) if is_pod else None
        loss = model(packer(batch.tokens, batch.whole_words, batch.targets, tasks))
        loss.backward()
        if not is_pod:
            nn.utils.clip_grad_norm_(model.parameters(), LARGEST_NORM)
        optimizer.step()
        optimizer.zero_grad()
        return float(loss.detach())

    return step


def main() -> None:
    arguments = parse_side(__doc__, code=False)
    torch.manual_seed(0)
    case = load_case(arguments.case)
    model = our_model(case, arguments.method)
    show(time_steps(model, case, arguments.steps, stepper(model, arguments.method)))


if __name__ == "__main__":
    # As a run of `train.py` does.
    keep_freed_memory()
    use_large_pages()
    main()
