"""Times our training steps of LRURec, through the data module and the Lightning trainer. Prints one JSON line."""

from __future__ import annotations

import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch

from cases import Case, Effort
from floor import epoch_flops
from rivals.lru_windows import DROPOUT, HIDDEN_SIZE, LEARNING_RATE, WARM_UP_STEPS, Windows, load_windows, parse_side
from side_tslrec import SEED, Stopwatch, build_data, build_module
from tslrec.data.interactions import IdMap, Interactions
from tslrec.data.windows import all_prefixes
from tslrec.settings.trainer import TrainerConfig
from tslrec.system.memory import keep_freed_memory, use_large_pages
from tslrec.system.meter import Meter
from tslrec.training.checkpoints import Checkpoints
from tslrec.training.trainer import StageTrainers

HELD_OUT = (1, 1)
"""A validation and a test item stand behind each training part; no step reads them."""


def interactions_of(windows: Windows) -> Interactions:
    """A data set whose training parts are the windows."""
    histories = [np.append(each, HELD_OUT) for each in windows.split()]
    offsets = np.concatenate([[0], np.cumsum([len(each) for each in histories])]).astype(np.int64)
    ids = IdMap(tuple(map(str, range(len(histories)))), ("", *map(str, range(windows.num_items))))
    return Interactions("windows", np.concatenate(histories).astype(np.int32), offsets, ids)


def measure(windows: Windows, batch: int, steps: int) -> dict[str, Any]:
    """The record of the timed steps.

    Args:
        windows: the data.
        batch: windows of a step.
        steps: how many are timed.
    """
    lightning.seed_everything(SEED, verbose=False)
    interactions = interactions_of(windows)
    targets = batch * float((windows.lengths - 1).mean())
    effort = Effort(warm_up=WARM_UP_STEPS, batches=steps)
    case = Case(
        "lru",
        "lru",
        "windows",
        HIDDEN_SIZE,
        effort,
        None,
        max_len=windows.max_len,
        dropout=DROPOUT,
        batch_size=round(targets),
        learning_rate=LEARNING_RATE,
    )
    module = build_module(case, interactions)
    data = build_data(case, interactions, module.backbone)
    stopwatch = Stopwatch()
    with tempfile.TemporaryDirectory() as folder:
        make = StageTrainers(
            TrainerConfig(name="cpu"),
            "bench",
            Path(folder, "run"),
            checkpoints=Checkpoints(Path(folder, "checkpoints")),
            meter=Meter(),
        )
        loader, wanted = data.train_dataloader(), WARM_UP_STEPS + steps
        trainer = make(max_epochs=-(-wanted // len(loader)), callbacks=[stopwatch])
        trainer.limit_train_batches = min(wanted, len(loader))
        trainer.fit(module, train_dataloaders=loader)
    timed = stopwatch.batches[WARM_UP_STEPS:wanted]
    contexts_N = all_prefixes(interactions, windows.max_len)
    flops = epoch_flops(case, windows.num_items, contexts_N.ends - contexts_N.starts)
    return {
        "seconds": statistics.median(seconds for seconds, _ in timed),
        "least": min(seconds for seconds, _ in timed),
        "steps": len(timed),
        "targets": statistics.mean(count for _, count in timed),
        "floor_flops": flops * batch / len(windows.lengths),
        "parameters": sum(each.numel() for each in module.parameters()),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    # As a run of `train.py` does.
    keep_freed_memory()
    use_large_pages()
    arguments = parse_side(__doc__, code=False)
    print(json.dumps(measure(load_windows(arguments.windows), arguments.batch, arguments.steps)))
