"""Preference models of the tiny random language model."""

from __future__ import annotations

from pathlib import Path

import torch

from tslrec.llm.item_input import EMBEDDINGS, ItemInput
from tslrec.llm.weights_source import resolve
from tslrec.settings.language_models import LLMConfig, LoraConfig
from tslrec.stages.sft.loading import new_model
from tslrec.stages.sft.model import PreferenceLLM

NUM_ITEMS, ITEM_SIZE, NUM_CLUSTERS = 20, 6, 4


def make_model(
    *, moved: bool = True, device: torch.device | None = None, items: ItemInput = EMBEDDINGS, **changes: object
) -> PreferenceLLM:
    """A model with fixed random numbers: equal settings give equal models.

    Args:
        device: where it is; None: on the CPU.
        moved: whether noise is added to all trained parameters, so that LoRA and head are not at their initial values.
        items: what of an item it reads.
        changes: fields of `LLMConfig`.
    """
    settings: dict[str, object] = {"name": "tiny", "random": {}, "lora": LoraConfig(rank=2, alpha=4), **changes}
    config = LLMConfig(**settings)  # type: ignore[arg-type]
    torch.manual_seed(0)
    table_ID = torch.randn(NUM_ITEMS + 1, ITEM_SIZE)
    model = new_model(config, resolve(config, Path("unused")), table_ID, NUM_CLUSTERS, items)
    if moved:
        torch.manual_seed(1)
        for parameter in model.trainable_parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model if device is None else model.to(device)
