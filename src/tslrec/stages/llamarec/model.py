"""Builds LlamaRec's ranker: a language model with LoRA and its own head for tokens."""

from __future__ import annotations

import torch

from tslrec.llm.loading import load_to_train
from tslrec.llm.prompt_packing import PromptPacker
from tslrec.llm.prompted import add_lora
from tslrec.llm.text import TextLLM
from tslrec.llm.title_tokens import ItemTokens, refuse_unknown_words
from tslrec.llm.token_head import load_token_head
from tslrec.llm.weights_source import ResolvedSource
from tslrec.settings.language_models import LLMConfig, LoraConfig
from tslrec.stages.llamarec.prompt import PromptPieces
from tslrec.training.deepspeed_zero import gathered

READ_STATES = 2
"""Last states of a training prompt that are read: before the letter, and at it."""


def new_ranker(
    llm: LLMConfig, lora: LoraConfig, source: ResolvedSource, pieces: PromptPieces, items: ItemTokens
) -> TextLLM:
    """Builds the ranker before training.

    Args:
        llm: the configured language model; its LoRA is not read.
        lora: LlamaRec's own LoRA.
        source: the language model's weights.
        pieces: of the prompts.
        items: the tokens of the titles.

    Raises:
        UserError: if the weights cannot be loaded or have no head for tokens, or the tokenizer is of another model.
    """
    base, _ = load_to_train(llm, source)
    refuse_unknown_words(items.tokens_N, base)
    head_VH = load_token_head(source, base, getattr(torch, llm.dtype))
    with gathered(base.get_input_embeddings().parameters()):
        return TextLLM(add_lora(base, lora), pieces.prefix, head_VH, shared_prefix=llm.shared_prefix)


def ranker_packer(pieces: PromptPieces, *, shared_prefix: bool) -> PromptPacker:
    """The packer of the ranker's prompts; without a shared prefix each prompt is run whole, in a row of its own."""
    return PromptPacker(pieces.prefix if shared_prefix else (), packs=shared_prefix, kept=READ_STATES)
