"""Times training steps of the authors' LRURec, from a checkout that the caller names; it needs torch and numpy.

The class is that of LlamaRec's `model/lru.py` (commit 48b288b), imported from the checkout. Around it stands what its
trainer does in a step: the next batch, padded on the left to the whole length; cross-entropy over the scores of all
positions; gradients clipped to 5; AdamW; and the loss's own value. Prints one JSON line.
"""

from __future__ import annotations

import importlib.util
import json
import math
import statistics
import sys
import time
from argparse import Namespace
from pathlib import Path

import torch
from torch import Tensor, nn

from rivals.lru_windows import (
    DROPOUT,
    HIDDEN_SIZE,
    LEARNING_RATE,
    NUM_LAYERS,
    WARM_UP_STEPS,
    Windows,
    load_windows,
    parse_side,
)

WEIGHT_DECAY, EPSILON, LARGEST_NORM = 0.01, 1e-9, 5.0
Pair = tuple[Tensor, Tensor]


class LeftPadded(torch.utils.data.Dataset[Pair]):
    """Inputs and labels of each window, padded on the left to `max_len`: all items are labels, all but the last inputs.

    A window shorter than `max_len` + 1 has its first item as the label of a padding position, as the authors have it.
    """

    def __init__(self, windows: Windows) -> None:
        self.windows = windows.split()
        self.max_len = windows.max_len

    def __len__(self) -> int:
        return len(self.windows)

    def __getitem__(self, number: int) -> Pair:
        items = torch.from_numpy(self.windows[number])
        return self.padded(items[:-1]), self.padded(items[-self.max_len :])

    def padded(self, items: Tensor) -> Tensor:
        return nn.functional.pad(items, (self.max_len - len(items), 0))


def authors_model(code: Path, windows: Windows) -> nn.Module:
    """The authors' class with their sizes.

    Args:
        code: the checkout.
        windows: the data.
    """
    path = code / "model" / "lru.py"
    if not path.is_file():
        sys.exit(f"error: {path}: there is no such file; give a checkout of LlamaRec (48b288b) with --code FOLDER")
    spec = importlib.util.spec_from_file_location("authors_lru", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    settings = Namespace(
        num_items=windows.num_items,
        bert_hidden_units=HIDDEN_SIZE,
        bert_num_blocks=NUM_LAYERS,
        bert_dropout=DROPOUT,
        bert_attn_dropout=DROPOUT,
    )
    model: nn.Module = module.LRURec(settings)
    return model


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    """AdamW whose weight decay spares biases and layer norms."""
    spared = [each for name, each in model.named_parameters() if "bias" in name or "layer_norm" in name]
    ids = {id(each) for each in spared}
    others = [each for each in model.parameters() if id(each) not in ids]
    groups = [{"params": others, "weight_decay": WEIGHT_DECAY}, {"params": spared, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=LEARNING_RATE, eps=EPSILON)


def time_steps(model: nn.Module, windows: Windows, batch: int, steps: int) -> list[float]:
    """Seconds of each timed step, from the end of the one before."""
    loader = torch.utils.data.DataLoader(LeftPadded(windows), batch_size=batch, shuffle=True, drop_last=True)
    optimizer, cross_entropy = optimizer_of(model), nn.CrossEntropyLoss(ignore_index=0)
    durations: list[float] = []
    losses: list[float] = []
    model.train()
    mark = time.perf_counter()
    while True:
        for items, labels in loader:
            optimizer.zero_grad()
            scores = model(items)
            loss = cross_entropy(scores.view(-1, scores.size(-1)), labels.view(-1))
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), LARGEST_NORM)
            optimizer.step()
            losses.append(loss.item())
            durations.append(time.perf_counter() - mark)
            mark = time.perf_counter()
            if len(durations) == WARM_UP_STEPS + steps:
                assert all(map(math.isfinite, losses))
                return durations[WARM_UP_STEPS:]


def main() -> None:
    arguments = parse_side(__doc__, code=True)
    torch.manual_seed(0)
    windows = load_windows(arguments.windows)
    model = authors_model(arguments.code, windows)
    durations = time_steps(model, windows, arguments.batch, arguments.steps)
    record = {
        "seconds": statistics.median(durations),
        "least": min(durations),
        "steps": len(durations),
        "parameters": sum(each.numel() * (2 if each.is_complex() else 1) for each in model.parameters()),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
