"""Runs the Triton kernel of the softmax on given logits: `python apply_softmax_kernel.py IN OUT DEVICE`.

A program of its own, because Triton's interpreter, which needs no GPU, is chosen by the environment variable
TRITON_INTERPRET before the first import of Triton.

The files are safetensors: of case k, `logits_k` (rows up to an aligned width) and `columns_k` go in; `logits_k`,
`sums_k` and `margins_k` come out. The width without what fills the rows is `num_items_k`.
"""

from __future__ import annotations

import sys

import torch
from safetensors.torch import load_file, save_file

from tslrec.training.softmax_kernel import exponentiate


def main(source: str, target: str, device: str) -> None:
    given = load_file(source, device=device)
    made: dict[str, torch.Tensor] = {}
    for name in [name for name in given if name.startswith("logits_")]:
        case = name.removeprefix("logits_")
        logits, columns = given[name], given[f"columns_{case}"]
        precise = torch.promote_types(logits.dtype, torch.float32)
        sums, margins = (torch.empty(len(logits), dtype=precise, device=device) for _ in range(2))
        exponentiate(logits, int(given[f"num_items_{case}"]), columns, sums, margins)
        made |= {name: logits, f"sums_{case}": sums, f"margins_{case}": margins}
    save_file(made, target)


if __name__ == "__main__":
    main(*sys.argv[1:])
