"""P5's vocabulary and language model in its decoder-only form, as the configuration and the item index say."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from tslrec.llm import architecture
from tslrec.llm.extended_text import ExtendedTextLLM
from tslrec.llm.loading import load_to_train, load_tokenizer, local_folder
from tslrec.llm.prompted import add_lora
from tslrec.llm.token_head import load_token_head
from tslrec.llm.weights_source import ResolvedSource
from tslrec.settings.language_models import LLMConfig, LoraConfig
from tslrec.stages.item_index.codes import ItemIndex
from tslrec.stages.p5.decoder_only import ContinuedPieces
from tslrec.stages.p5.texts import TextWriter
from tslrec.stages.p5.vocabulary import add_tokens
from tslrec.training.deepspeed_zero import gathered


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a language model and those of an item index.

    Attributes:
        pieces: encodes texts; the tokens of the index are numbered from `num_known`.
        num_known: rows of the language model's table of tokens; it may have more of them than its tokenizer has tokens.
        num_new: tokens of the index.
    """

    pieces: ContinuedPieces
    num_known: int
    num_new: int


def vocabulary_of(source: ResolvedSource, index: ItemIndex) -> Vocabulary:
    """The tokenizer of a language model, with the tokens of the index behind the rows of the model's table.

    Args:
        source: the language model's weights.
        index: the item index.

    Raises:
        UserError: if the tokenizer encodes words in a way that P5 cannot use.
    """
    tokenizer = load_tokenizer(source)
    folder = None if source.kind == "random" else local_folder(source)
    num_known, _ = architecture.embedding_sizes(architecture.build(source, folder))
    new_tokens = list(index.new_tokens)
    add_tokens(tokenizer, new_tokens)
    ids = tokenizer.convert_tokens_to_ids(new_tokens)
    assert isinstance(ids, list)
    rows = {int(number): num_known + place for place, number in enumerate(ids)}
    return Vocabulary(ContinuedPieces(tokenizer, rows), num_known, len(new_tokens))


def writer_of(vocabulary: Vocabulary, dataset: str, num_users: int, index: ItemIndex) -> TextWriter:
    """What writes the texts of a data set; see `TextWriter`."""
    return TextWriter(vocabulary.pieces, dataset, num_users, index.texts)


def new_model(llm: LLMConfig, lora: LoraConfig, source: ResolvedSource, num_new: int) -> ExtendedTextLLM:
    """The language model before training; what is random comes from torch's random state.

    LoRA adapts the table of tokens, too, as in OpenP5 (commit 7f11038, `src_llama`; RIVALS.md 3.16).

    Args:
        llm: the configured language model; its LoRA is not read.
        lora: P5's own LoRA.
        source: the language model's weights.
        num_new: tokens of the index.

    Raises:
        UserError: if the weights cannot be loaded, or have no head for tokens.
    """
    base, _ = load_to_train(llm, source)
    head_VH = load_token_head(source, base, getattr(torch, llm.dtype))
    with gathered(base.get_input_embeddings().parameters()):
        adapted = add_lora(base, lora, token_table=True)
        return ExtendedTextLLM(adapted, num_new, head_VH, packs=llm.shared_prefix)
