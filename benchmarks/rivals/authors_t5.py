"""Times steps of an authors' T5 from a folder that the caller names; it needs torch, numpy and transformers 4.26."""

from __future__ import annotations

import importlib.util
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import transformers
from torch import nn

from rivals.t5_batches import T5Batch, T5Case, repeated


def module_in(code: Path, names: Sequence[str], release: str) -> ModuleType:
    """The module in the first of some files of a folder that exists.

    Args:
        code: the folder.
        names: paths in it.
        release: what the folder should hold, for the message.
    """
    path = next((code / name for name in names if (code / name).is_file()), None)
    if path is None:
        sys.exit(f"error: {code}: has no {names[0]}; give a checkout of {release} with --code FOLDER")
    spec = importlib.util.spec_from_file_location("authors_module", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def config_of(case: T5Case) -> Any:
    """Transformers' configuration of the case's T5, with the authors' dropout and special tokens."""
    start = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}
    given: dict[str, Any] = {"vocab_size": case.vocabulary, "n_positions": 512, "dropout_rate": 0.1}
    given |= {**start, **case.sizes}
    return transformers.T5Config(**given)


def time_steps(model: nn.Module, case: T5Case, steps: int, step: Callable[[T5Batch], float]) -> dict[str, Any]:
    """The record of the timed steps.

    Args:
        model: the model.
        case: what is trained on.
        steps: how many are timed.
        step: does a whole optimizer step, from token ids on, and returns the loss.
    """
    model.train()
    durations, losses = [], []
    for batch in repeated(case.batches, steps):
        mark = time.perf_counter()
        losses.append(step(batch))
        durations.append(time.perf_counter() - mark)
    assert all(map(math.isfinite, losses))
    timed = durations[-steps:]
    return {
        "seconds": statistics.median(timed),
        "least": min(timed),
        "steps": len(timed),
        "first_loss": losses[0],
        "parameters": sum(each.numel() for each in model.parameters()),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def show(record: dict[str, Any]) -> None:
    """Prints a record as one JSON line."""
    print(json.dumps(record))
