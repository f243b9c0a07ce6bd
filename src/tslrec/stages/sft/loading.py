"""Builds the preference model: a new one to train, or the trained one from its stage's folder.

Shapes: I items (row 0 is padding), D hidden size of the backbone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor

from tslrec.llm.adapter import load_adapted
from tslrec.llm.item_input import EMBEDDINGS, ItemInput
from tslrec.llm.loading import load, load_to_train, load_tokenizer
from tslrec.llm.packing import Packer
from tslrec.llm.prompted import add_lora, packer_of
from tslrec.llm.title_tokens import refuse_unknown_words
from tslrec.llm.weights_source import ResolvedSource
from tslrec.settings.language_models import LLMConfig
from tslrec.stages.sft.model import PreferenceLLM
from tslrec.stages.sft.prompt import encode_prompt
from tslrec.training.deepspeed_zero import gathered


def new_model(
    llm: LLMConfig,
    source: ResolvedSource,
    item_embeddings_ID: Tensor,
    num_clusters: int,
    items: ItemInput = EMBEDDINGS,
) -> PreferenceLLM:
    """Builds a preference model before training; its language model equals the base model, because LoRA starts at zero.

    Args:
        llm: the configured language model and its LoRA.
        source: its weights.
        item_embeddings_ID: the backbone's item embeddings, `[I + 1, D]`.
        num_clusters: K.
        items: what of an item it reads.

    Raises:
        UserError: if the weights cannot be loaded, or the tokenizer is of another model.
    """
    base, tokenizer = load_to_train(llm, source)
    refuse_unknown_words(np.concatenate([[0], *(items.titles or ())]), base)
    with gathered(base.get_input_embeddings().parameters()):
        return PreferenceLLM(
            add_lora(base, llm.lora),
            encode_prompt(tokenizer, num_clusters),
            item_embeddings_ID,
            num_clusters,
            shared_prefix=llm.shared_prefix,
            items=items,
        )


def preference_packer(
    llm: LLMConfig, source: ResolvedSource, num_clusters: int, items: ItemInput = EMBEDDINGS
) -> Packer:
    """The packer of the preference model, for a data module that is built before the model.

    Args:
        llm: the configured language model.
        source: its weights, of which only the tokenizer is loaded.
        num_clusters: K, which is part of the prompt.
        items: what of an item it reads.
    """
    prompt = encode_prompt(load_tokenizer(source), num_clusters)
    return packer_of(prompt, shared_prefix=llm.shared_prefix, items=items)


def load_trained(
    folder: Path,
    llm: LLMConfig,
    source: ResolvedSource,
    item_embeddings_ID: Tensor,
    items: ItemInput = EMBEDDINGS,
) -> PreferenceLLM:
    """Loads the preference model that `save_trained` wrote, frozen and in evaluation mode.

    Args:
        folder: the stage's folder. The adapter's own configuration in it decides LoRA's settings.
        llm: the configured language model; its LoRA is not read.
        source: its weights.
        item_embeddings_ID: item embeddings, `[I + 1, D]`.
        items: what of an item it reads, as in the training.

    Raises:
        ValueError: if the adapter does not fit the language model.
        UserError: if the weights cannot be loaded, or the tokenizer is of another model.
    """
    base, tokenizer = load(source, dtype=llm.dtype, weight_bits=llm.weight_bits)
    refuse_unknown_words(np.concatenate([[0], *(items.titles or ())]), base)
    adapted, heads = load_adapted(base, folder)
    num_clusters = heads["group_head.bias"].shape[0]
    model = PreferenceLLM(
        adapted,
        encode_prompt(tokenizer, num_clusters),
        item_embeddings_ID,
        num_clusters,
        shared_prefix=llm.shared_prefix,
        items=items,
    )
    for layer, module in (("item_projection", model.item_projection), ("group_head", model.group_head)):
        if module is not None:
            module.load_state_dict({name: heads[f"{layer}.{name}"] for name in ("weight", "bias")})
    return model.requires_grad_(False).eval()
