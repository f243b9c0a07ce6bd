"""Times training steps of the authors' P5, from a folder that the caller names.

The class is that of OpenP5 (commit 7f11038). Around it stands what its runner does in a step: the batch padded to its
longest text, the mean over rows of each row's mean loss, gradients clipped to 1, AdamW, and the schedule. Prints one
JSON line.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn

from rivals.authors_t5 import config_of, module_in, show, time_steps
from rivals.t5_batches import (
    EPSILON,
    LARGEST_NORM,
    LEARNING_RATE,
    WEIGHT_DECAY,
    T5Batch,
    T5Case,
    load_case,
    padded,
    parse_side,
)

FILES = ("src/src_t5/model/P5.py", "src/src_t5/model/P5_T5.py", "src/model/P5_T5.py", "src/model/P5.py")
"""Where the class is, in different commits."""


def authors_model(code: Path, case: T5Case) -> nn.Module:
    """The authors' class with random weights, its tables of tokens tied as they tie them.

    Args:
        code: the folder.
        case: gives the sizes.
    """
    module = module_in(code, FILES, "OpenP5 (7f11038)")
    kind = getattr(module, "P5_T5", None) or module.P5
    model: Any = kind(config_of(case))
    for part in (model.encoder, model.decoder):
        part.embed_tokens = model.shared
    model.lm_head.weight = model.shared.weight
    found: nn.Module = model
    return found


def stepper(model: nn.Module, steps: int) -> Callable[[T5Batch], float]:
    """What an optimizer step does."""
    adamw = getattr(transformers, "AdamW", torch.optim.AdamW)
    optimizer = adamw(model.parameters(), lr=LEARNING_RATE["p5"], eps=EPSILON["p5"], weight_decay=WEIGHT_DECAY)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, 1, 1000 + steps)

    def step(batch: T5Batch) -> float:
        ids, words, labels = (torch.from_numpy(padded(each)) for each in batch[:3])
        output = model(input_ids=ids, whole_word_ids=words, attention_mask=(ids != 0).long(), labels=labels)
        mask = (labels != 0).float()
        loss = output["loss"].view_as(labels) * mask
        loss = (loss.sum(dim=1) / mask.sum(dim=1).clamp(min=1)).mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), LARGEST_NORM)
        optimizer.step()
        schedule.step()
        model.zero_grad()
        return float(loss.detach())

    return step


def main() -> None:
    arguments = parse_side(__doc__, code=True)
    torch.manual_seed(0)
    case = load_case(arguments.case)
    model = authors_model(arguments.code, case)
    show(time_steps(model, case, arguments.steps, stepper(model, arguments.steps)))


if __name__ == "__main__":
    main()
