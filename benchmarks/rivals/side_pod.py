"""Times training steps of the authors' POD, from a folder that the caller names.

The class is that of POD's `module.py` (commit fd31697). Around it stands what its training does in a step: the batch
padded to its longest text, the loss over all target positions, their padding among them, and AdamW. Prints one JSON
line.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from rivals.authors_t5 import config_of, module_in, show, time_steps
from rivals.t5_batches import (
    LEARNING_RATE,
    NUM_TASKS,
    PROMPT_VECTORS,
    T5Batch,
    T5Case,
    load_case,
    padded,
    parse_side,
)


def authors_model(code: Path, case: T5Case) -> nn.Module:
    """The authors' class with random weights.

    Args:
        code: the folder.
        case: gives the sizes.
    """
    model: nn.Module = module_in(code, ("module.py",), "POD (fd31697)").Solomon(config_of(case))
    model.init_prompt(NUM_TASKS, PROMPT_VECTORS, torch.device("cpu"))  # type: ignore[operator]
    return model


def stepper(model: nn.Module) -> Callable[[T5Batch], float]:
    """What an optimizer step does."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE["pod"])

    def step(batch: T5Batch) -> float:
        ids, words, labels = (torch.from_numpy(padded(each)) for each in batch[:3])
        tasks = torch.full((len(ids),), batch.task)
        optimizer.zero_grad()
        loss = model(tasks, ids, words, (ids != 0).long(), labels=labels).loss
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def main() -> None:
    arguments = parse_side(__doc__, code=True)
    torch.manual_seed(0)
    case = load_case(arguments.case)
    model = authors_model(arguments.code, case)
    show(time_steps(model, case, arguments.steps, stepper(model)))


if __name__ == "__main__":
    main()
