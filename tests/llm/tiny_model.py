"""Tiny preference models."""

from __future__ import annotations

from pathlib import Path

import torch

from tslrec.config import LLMConfig, LoraConfig
from tslrec.llm.adapter_files import new_model
from tslrec.llm.preference_model import PreferenceLLM
from tslrec.llm.source import resolve

NUM_ITEMS, ITEM_SIZE, NUM_CLUSTERS = 20, 6, 4


def make_model(*, moved: bool = True, **changes: object) -> PreferenceLLM:
    """Equal models for equal settings; `moved` ones have a LoRA and a head that are not at their start."""
    settings: dict[str, object] = {"name": "tiny", "random": {}, "lora": LoraConfig(rank=2, alpha=4), **changes}
    config = LLMConfig(**settings)  # type: ignore[arg-type]
    torch.manual_seed(0)
    table_ID = torch.randn(NUM_ITEMS + 1, ITEM_SIZE)
    model = new_model(config, resolve(config, Path("unused")), table_ID, NUM_CLUSTERS)
    if moved:
        torch.manual_seed(1)
        for parameter in model.trainable_parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model
