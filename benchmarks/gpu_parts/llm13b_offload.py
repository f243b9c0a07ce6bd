"""The step `zero3_offload` of the part `llm13b`: it starts `llm13b_zero.py` and passes on what that measures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

from gpu_parts.bench import Bench, NotMeasuredError
from gpu_parts.llm13b_loaded import unload

FIGURE = "FIGURE "
"""Begins a line of `llm13b_zero.py` with a figure or a sentence."""


def zero3_offload(bench: Bench) -> None:
    """The same SFT steps with the weights in host memory, in a process of their own: `llm13b_zero.py`."""
    if find_spec("deepspeed") is None:
        raise NotMeasuredError("deepspeed is not installed")
    unload()
    if bench.on_card:
        import torch

        torch.cuda.empty_cache()
    bench.product_rate("bfloat16")
    script = Path(__file__).with_name("llm13b_zero.py")
    command = [
        sys.executable,
        str(script),
        str(bench.folder),
        str(bench.data),
        bench.device_name,
        *(["--rehearse"] if bench.rehearse else []),
    ]
    environment = {**os.environ, **({} if bench.on_card else {"DS_ACCELERATOR": "cpu"})}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    for line in process.stdout:
        # DeepSpeed prints much; it goes to the log.
        if not line.startswith(FIGURE):
            print(line, end="", file=sys.stderr)
            continue
        found = json.loads(line[len(FIGURE) :])
        if "say" in found:
            bench.say(found["say"])
        else:
            bench.figure(found.pop("name"), found.pop("value"), found.pop("unit"), **found)
    if code := process.wait():
        raise RuntimeError(f"llm13b_zero.py ended with code {code}")
