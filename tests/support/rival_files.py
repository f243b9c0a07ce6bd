"""The rivals' reference files of P5 and POD, and the model with their weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from support.checkout import golden_folder
from tslrec.llm.encoder_decoder.model import EncoderDecoder
from tslrec.llm.encoder_decoder.shape import EncoderDecoderShape
from tslrec.llm.encoder_decoder.t5_weights import from_t5_names

RIVALS = golden_folder() / "rivals"
FILES = {kind: sorted(RIVALS.rglob(f"{kind}.npz")) for kind in ("P5", "POD")}
"""The files, those of `heldout` included."""

needs_files = pytest.mark.skipif(not FILES["P5"], reason="the rivals' reference files are not beside the checkout")

ATOL = {"cpu": 2e-5, "cuda": 5e-5}
Golden = dict[str, Any]


def read(path: Path) -> Golden:
    with np.load(path) as file:
        golden: Golden = {key: file[key] for key in file.files}
    return {**golden, "meta": json.loads(str(golden["meta"]))}


def under(golden: Golden, prefix: str) -> dict[str, Tensor]:
    return {key[len(prefix) :]: torch.from_numpy(value) for key, value in golden.items() if key.startswith(prefix)}


def model_of(golden: Golden, device: torch.device) -> EncoderDecoder:
    names = set(EncoderDecoderShape.__dataclass_fields__)
    shape = EncoderDecoderShape(**{name: value for name, value in golden["meta"]["config"].items() if name in names})
    weights = from_t5_names(under(golden, "w/"))
    model = EncoderDecoder(
        shape,
        len(weights["tokens.weight"]),
        num_prompts=len(weights.get("prompts.weight", ())),
        whole_words=len(weights["whole_words.weight"]),
    )
    model.load_state_dict(weights)
    return model.to(device).eval()


def unpadded(values_BS: NDArray[np.int64], mask_BS: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    return [values[mask == 1] for values, mask in zip(values_BS, mask_BS, strict=True)]
