"""The process of one side on a card: it answers one request after another, so that what it imports is imported once.

A request is a line of JSON on standard input, the answer a line of JSON on standard output: a record, or `error` and
what went wrong. Whatever a library prints goes to standard error instead. The process ends when its input ends.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cases import CASES, Case


@dataclass(frozen=True)
class Request:
    """What is to be measured.

    Attributes:
        case: model, sizes and data; None: only the data are read, so that they are there when a case comes.
        data: `beauty` or `ml1m`.
        file: its raw file.
        folder: with the same data as an atomic file, for what a library writes.
        device: `cuda`, or `cpu` in a rehearsal.
        precision: of fp32 products, as `torch.set_float32_matmul_precision` names it.
        tiny: whether sizes and data are those of a rehearsal.
    """

    case: Case | None
    data: str
    file: Path
    folder: Path
    device: torch.device
    precision: str
    tiny: bool


def card_case(name: str, *, tiny: bool) -> Case:
    """A case of `make bench`, or with the sizes of a rehearsal."""
    case = next(case for case in CASES if case.name == name)
    return replace(case, hidden_size=16, max_len=8, batch_size=32) if tiny else case


def serve(measure: Callable[[Request], dict[str, Any]]) -> None:
    """Answers requests until there are no more."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", required=True, choices=["cuda", "cpu"])
    device = torch.device(parser.parse_args().device)
    # RecBole reads the command line too.
    del sys.argv[1:]
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    for line in sys.stdin:
        answers.write(json.dumps(answer(measure, json.loads(line), device), sort_keys=True) + "\n")
        answers.flush()


def answer(measure: Callable[[Request], dict[str, Any]], asked: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """The record of one request, or its error: the next request may well succeed."""
    torch.set_float32_matmul_precision(asked["precision"])
    # cuDNN's convolutions and recurrent layers would use TF32 by default: they follow, on all sides.
    torch.backends.cudnn.allow_tf32 = asked["precision"] != "highest"
    request = Request(
        None if asked["case"] is None else card_case(asked["case"], tiny=asked["tiny"]),
        asked["data"],
        Path(asked["file"]),
        Path(asked["folder"]),
        device,
        asked["precision"],
        asked["tiny"],
    )
    try:
        if device.type == "cuda":
            torch.zeros(1, device=device)  # The card's context, which the first request pays for.
        return measure(request)
    except Exception as error:
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}".splitlines()[0][:300]}
    finally:
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
