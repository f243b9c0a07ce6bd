"""Rebuilds E4SRec's recommender, whose language model encodes every user.

Shapes: B sequences, L positions, I items (row 0 is padding), H hidden size of the language model.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from tslrec.llm.adapter import load_adapted
from tslrec.llm.loading import load
from tslrec.llm.prompted import packer_of
from tslrec.llm.weights_source import resolve
from tslrec.stages.e4srec.model import NextItemLLM
from tslrec.stages.e4srec.prompt import encode_e4srec_prompt
from tslrec.stages.fusion_inputs import Sources
from tslrec.stages.outputs import read_item_embeddings
from tslrec.stages.restored import Restored
from tslrec.system.manifests import read_manifest


def restore(sources: Sources, folder: Path) -> Restored:
    """The language model with its adapter, item projection and item head.

    Args:
        sources: the run's configuration, data set and earlier results.
        folder: the stage's artifact.

    Raises:
        UserError: if the language model's weights cannot be had.
    """
    config = sources.config
    source = resolve(config.llm, Path(config.cache))
    base, tokenizer = load(source, dtype=config.llm.dtype, weight_bits=config.llm.weight_bits)
    adapted, heads = load_adapted(base, folder)
    prompt = encode_e4srec_prompt(tokenizer)
    model = NextItemLLM(
        adapted, prompt, read_item_embeddings(sources.inputs["backbone"]), shared_prefix=config.llm.shared_prefix
    )
    for layer, module in model.trained_layers().items():
        module.load_state_dict({name: heads[f"{layer}.{name}"] for name in module.state_dict()})
    model.requires_grad_(False).eval()
    packer = packer_of(prompt, shared_prefix=config.llm.shared_prefix)
    with torch.inference_mode():
        prefix = model.run_prefix() if model.shared_prefix else None

    def encode(items_BL: Tensor, lengths_B: Tensor) -> Tensor:
        histories = [row[:length].numpy() for row, length in zip(items_BL, lengths_B.tolist(), strict=True)]
        user_BH: Tensor = model(packer(histories), prefix)
        return user_BH

    max_len = int(read_manifest(folder)["config"]["max_len"])
    return Restored(encode, model.item_head.weight.detach(), max_len)
