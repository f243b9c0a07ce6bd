"""Prompts put together from pieces have the tokens of the whole text, and the letters that were labels are scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from tokenizers import decoders as token_decoders
from tokenizers.pre_tokenizers import ByteLevel, Split
from tokenizers.processors import TemplateProcessing

from tslrec.llm.prompt import encode_text
from tslrec.llm.tiny import byte_tokenizer
from tslrec.llm.title_tokens import encode_titles
from tslrec.settings.rivals import LlamaRecConfig
from tslrec.stages.llamarec.prompt import PromptPieces, pieces_for
from tslrec.stages.llamarec.wording import HEAD, LETTERS, POOL, SEPARATOR, TAIL
from tslrec.system.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
"""How Llama 3 and Qwen split a text into words; punctuation takes the newlines after it along."""

TITLES = ["Toy Story (1995)", "Se7en!", "'night, Mother", "1-900 (06)", "Amélie", "(500) Days of Summer", "M*A*S*H"]
CORPUS = [
    *TITLES,
    HEAD + POOL + TAIL,
    "a story of the night \n\n",
    "the summer days\n",
    *[f"a {letter} b" for letter in LETTERS],
]


def wrapped(tokenizer: Tokenizer, **special: str) -> PreTrainedTokenizerFast:
    from transformers import PreTrainedTokenizerFast

    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def sentencepiece_like() -> PreTrainedTokenizerFast:
    """As Llama 2's: words begin with ▁, the first one too; other characters are bytes; BOS before every text."""
    special = ["<unk>", "<s>", "</s>"]
    # As in Llama 2's vocabulary no token has ▁ inside: its trainer splits there, its tokenizer does not.
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.pre_tokenizer = Split("▁", "merged_with_next")
    alphabet = sorted({letter for text in CORPUS for letter in text if letter > " "} | {"▁"})
    trained = [*special, *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(
        vocab_size=700, special_tokens=trained, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([text.replace("\n", " ") for text in CORPUS * 3], trainer)
    tokenizer.pre_tokenizer = None
    tokenizer.decoder = token_decoders.Sequence(
        [
            token_decoders.Replace("▁", " "),
            token_decoders.ByteFallback(),
            token_decoders.Fuse(),
            token_decoders.Strip(" ", 1, 0),
        ]
    )
    tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return wrapped(tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def byte_level(pattern: str | None) -> PreTrainedTokenizerFast:
    """Byte-level BPE; `pattern` splits texts into words, None does as GPT-2 and SmolLM2."""
    tokenizer = Tokenizer(models.BPE())
    own = ByteLevel(add_prefix_space=False, use_regex=pattern is None)
    tokenizer.pre_tokenizer = (
        own if pattern is None else pre_tokenizers.Sequence([Split(Regex(pattern), "isolated"), own])
    )
    tokenizer.decoder = token_decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        initial_alphabet=ByteLevel.alphabet(),
        special_tokens=["<|end|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS * 3, trainer)
    return wrapped(tokenizer, eos_token="<|end|>")


TOKENIZERS = {
    "bytes": byte_tokenizer(),
    "gpt2": byte_level(None),
    "llama3": byte_level(LLAMA3),
    "llama2": sentencepiece_like(),
}


def pieces_of(tokenizer: PreTrainedTokenizerBase, *, max_tokens: int = 10**6, candidates: int = 20) -> PromptPieces:
    return pieces_for(tokenizer, LlamaRecConfig(candidates=candidates, max_tokens=max_tokens))


def whole_text(history: Sequence[str], candidates: Sequence[str]) -> str:
    first = SEPARATOR.join(f" ({number}) {title}" for number, title in enumerate(history, 1))
    second = SEPARATOR.join(f" ({letter}) {title}" for letter, title in zip(LETTERS, candidates, strict=False))
    return f"{HEAD}{first}{POOL}{second}{TAIL}"


def put_together(tokenizer: PreTrainedTokenizerBase, pieces: PromptPieces, titles: Sequence[str]) -> list[int]:
    """The prompt of a history of all titles and the same candidates."""
    items = encode_titles(tokenizer, ["", *titles], 10**6)
    numbers = np.arange(1, len(titles) + 1)
    return pieces.prompt(numbers, numbers, items).tolist()


@pytest.mark.parametrize("name", TOKENIZERS)
def test_pieces_have_the_tokens_of_the_whole_text(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    assert put_together(tokenizer, pieces_of(tokenizer), TITLES) == list(
        tokenizer(whole_text(TITLES, TITLES)).input_ids
    )


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=60, deadline=None)
@given(titles=st.lists(st.text(st.characters(exclude_categories=["Cs"]), min_size=1), min_size=1, max_size=6))
def test_so_do_those_of_any_titles(name: str, titles: list[str]) -> None:
    tokenizer = TOKENIZERS[name]
    named = [" ".join(title.split()) or "item 1" for title in titles]
    assert put_together(tokenizer, pieces_of(tokenizer), titles_or_items(titles)) == list(
        tokenizer(whole_text(named, named)).input_ids
    )


def titles_or_items(titles: Sequence[str]) -> list[str]:
    """Titles, of which none is empty."""
    return [title if title.split() else "item 1" for title in titles]


def test_the_letters_that_were_labels_are_scored() -> None:
    # With SentencePiece a letter alone has a space before it, and is another token: what the public code scores.
    tokenizer = TOKENIZERS["llama2"]
    pieces = pieces_of(tokenizer)
    assert tokenizer.convert_ids_to_tokens(pieces.answer.letters_C.tolist()) == list(LETTERS[:20])
    assert tokenizer.convert_ids_to_tokens(encode_text(tokenizer, "A")) == ["▁A"]
    assert pieces.answer.end == tokenizer.eos_token_id
    assert pieces.start.tolist() == [tokenizer.bos_token_id]
    assert pieces_of(TOKENIZERS["gpt2"]).start.tolist() == []


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_long_prompt_loses_its_left_and_keeps_its_start(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    whole = put_together(tokenizer, pieces_of(tokenizer), TITLES)
    for max_tokens in (len(whole), len(whole) - 1, 40):
        cut = put_together(tokenizer, pieces_of(tokenizer, max_tokens=max_tokens), TITLES)
        start = pieces_of(tokenizer).start.tolist()
        assert len(cut) == max_tokens
        assert cut == [*start, *whole[len(whole) - max_tokens + len(start) :]]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_title_keeps_the_text_of_its_first_tokens(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    titles = ["", "the summer night of the story", "ok", "é" * 30]
    items = encode_titles(tokenizer, titles, 3)
    assert len(items[0]) == 0
    kept = [str(tokenizer.decode(items[item], clean_up_tokenization_spaces=False)).strip() for item in range(1, 4)]
    assert titles[1].startswith(kept[0])
    assert len(kept[0]) < len(titles[1])
    assert kept[1] == "ok"
    assert set(kept[2]) == {"é"}


def test_a_tokenizer_without_letters_of_their_own_is_refused() -> None:
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0, ")": 1, "A": 2}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = ByteLevel(add_prefix_space=False)
    with pytest.raises(UserError, match="no token of its own for the letter B") as refused:
        pieces_of(wrapped(tokenizer, unk_token="[UNK]"))
    assert len(str(refused.value)) <= 300
