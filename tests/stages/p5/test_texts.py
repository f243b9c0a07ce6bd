"""P5's texts: what is put together from pieces is what the whole text gives, with each kind of tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from support.unigram import NAMES, trained_unigram
from tslrec.llm.prompt import encode_text
from tslrec.llm.tiny import byte_tokenizer
from tslrec.settings.rivals import P5_TASKS
from tslrec.stages.item_index.codes import ItemIndex, index_of_codes, index_of_numbers
from tslrec.stages.p5.decoder_only import RESPONSE, ContinuedPieces
from tslrec.stages.p5.pieces import WordPieces
from tslrec.stages.p5.templates import (
    ALL_TEMPLATES,
    DATASET,
    EVALUATED,
    HISTORY,
    NUM_SEEN,
    TEMPLATES,
    USER,
    parts_of,
    template_number,
)
from tslrec.stages.p5.texts import TextWriter, input_text, item_text, output_text, words_of_texts
from tslrec.stages.p5.vocabulary import OwnVocabulary, Tokenizer, add_tokens, number_tokens, t5_tokenizer
from tslrec.system.errors import UserError

NUM_USERS, NUM_ITEMS = 130, 40


def numbers() -> ItemIndex:
    return index_of_numbers(np.arange(1000, 1000 + NUM_ITEMS + 1))


def paths() -> ItemIndex:
    return index_of_codes([(), *((item % 3, item // 3) for item in range(NUM_ITEMS))])


def own(index: ItemIndex, name: str) -> OwnVocabulary:
    return OwnVocabulary(words_of_texts(name), index.new_tokens)


@pytest.fixture(scope="module")
def unigram_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained_unigram(tmp_path_factory.mktemp("t5"))


Drawn = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]


def draw_inputs(seed: int, texts: int = 40) -> Drawn:
    """Templates, users, where histories begin and end, and the items."""
    draw = np.random.default_rng(seed)
    items = draw.integers(1, NUM_ITEMS + 1, 200)
    starts = draw.integers(0, 180, texts)
    templates = draw.integers(0, len(ALL_TEMPLATES), texts)
    return templates, draw.integers(0, NUM_USERS, texts), starts, starts + draw.integers(1, 21, texts), items


def whole_texts(index: ItemIndex, name: str, drawn: Drawn) -> list[str]:
    templates, users, starts, ends, items = drawn
    return [
        input_text(ALL_TEMPLATES[t], name, u, [item_text(index.texts[item]) for item in items[a:b]])
        for t, u, a, b in zip(templates, users.tolist(), starts, ends, strict=True)
    ]


def words_counted(tokens: list[str]) -> list[int]:
    """The number of each token's word, by plain counting."""
    found, count = [], 0
    for token in tokens:
        count += token.startswith("▁")
        found.append(count)
    return found


def assert_texts_are_whole(tokenizer: Tokenizer, index: ItemIndex, name: str, seed: int, most: int | None) -> None:
    writer = TextWriter(WordPieces(tokenizer), name, NUM_USERS, index.texts)
    drawn = draw_inputs(seed)
    found = writer.inputs(*drawn, most)
    for row, text in enumerate(whole_texts(index, name, drawn)):
        tokens = tokenizer.tokenize(text)[: None if most is None else most - 1]
        length = found.lengths_B[row]
        assert found.ids_BS[row, :length].tolist() == [*tokenizer.convert_tokens_to_ids(tokens), 1]
        assert found.whole_words_BS[row, :length].tolist() == [*words_counted(tokens), 0]
        assert not found.ids_BS[row, length:].any()
        assert not found.whole_words_BS[row, length:].any()
    items = np.arange(1, NUM_ITEMS + 1)
    answers, codes = writer.labels(items), writer.output_codes()
    assert codes[0] == ()
    for item, ids, length in zip(items.tolist(), answers.ids_BS, answers.lengths_B, strict=True):
        tokens = tokenizer.tokenize(output_text(name, item_text(index.texts[item])))
        assert ids[:length].tolist() == [*tokenizer.convert_tokens_to_ids(tokens), 1] == list(codes[item])
    assert len(set(codes)) == NUM_ITEMS + 1


@settings(max_examples=25, deadline=None, derandomize=True)
@given(
    name=st.one_of(st.sampled_from(NAMES), st.text(min_size=1, max_size=12).filter(lambda text: "{" not in text)),
    seed=st.integers(0, 1000),
    of_paths=st.booleans(),
    most=st.one_of(st.none(), st.integers(2, 60)),
)
def test_texts_of_the_own_vocabulary_are_whole_whatever_the_data_set_is_called(
    name: str, seed: int, of_paths: bool, most: int | None
) -> None:
    index = paths() if of_paths else numbers()
    assert_texts_are_whole(own(index, name), index, name, seed, most)


@pytest.mark.parametrize("make", [numbers, paths])
@pytest.mark.parametrize("name", NAMES)
def test_texts_of_a_tokenizer_like_t5s_are_whole(make: Any, name: str, unigram_folder: Path) -> None:
    index: ItemIndex = make()
    tokenizer: Any = t5_tokenizer(unigram_folder, index.new_tokens)
    assert_texts_are_whole(tokenizer, index, name, 5, None)
    assert_texts_are_whole(tokenizer, index, name, 6, 30)
    # The end token is where the tokenizer itself puts it.
    drawn = draw_inputs(7, texts=1)
    (text,) = whole_texts(index, name, drawn)
    writer = TextWriter(WordPieces(tokenizer), name, NUM_USERS, index.texts)
    assert writer.inputs(*drawn).ids_BS[0].tolist() == tokenizer(text).input_ids


@pytest.mark.parametrize("make", [numbers, paths])
def test_texts_of_a_decoder_only_model_are_whole(make: Any) -> None:
    index: ItemIndex = make()
    tokenizer = byte_tokenizer()
    add_tokens(tokenizer, index.new_tokens)
    writer = TextWriter(ContinuedPieces(tokenizer), "Beauty", NUM_USERS, index.texts)
    drawn = draw_inputs(3)
    found, cut = writer.inputs(*drawn), writer.inputs(*drawn, 50)
    answers = writer.labels(drawn[-1][:40])
    end = encode_text(tokenizer, f" {RESPONSE}")
    for row, text in enumerate(whole_texts(index, "Beauty", drawn)):
        answer = f" {output_text('Beauty', item_text(index.texts[drawn[-1][row]]))}"
        prompt = found.ids_BS[row, : found.lengths_B[row]].tolist()
        target = answers.ids_BS[row, : answers.lengths_B[row]].tolist()
        assert prompt + target == encode_text(tokenizer, f"{text} {RESPONSE}{answer}\n")
        assert cut.ids_BS[row, : cut.lengths_B[row]].tolist() == prompt[: -len(end)][: 50 - len(end)] + end
    assert not found.whole_words_BS.any()


def test_a_tokenizer_that_puts_a_space_before_every_text_is_continued_without_one() -> None:
    """As Llama 2's: `▁` is prepended to each text, and the begin token is added."""
    from tokenizers import Tokenizer, models, normalizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    # Words apart, as in SentencePiece, or the trainer would merge over spaces.
    words = [word for text in ALL_TEMPLATES for word in text.split()]
    trainer = trainers.BpeTrainer(vocab_size=150, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    tokenizer.train_from_iterator([*words, "Beauty", "Response:", *(f"item_{n}" for n in range(99))], trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    tokens = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, **tokens)
    encoder, index = ContinuedPieces(fast), numbers()
    assert encoder.space == ""
    writer = TextWriter(encoder, "Beauty", NUM_USERS, index.texts)
    drawn = draw_inputs(4)
    found, answers = writer.inputs(*drawn), writer.labels(drawn[-1][:40])
    for row, text in enumerate(whole_texts(index, "Beauty", drawn)):
        answer = output_text("Beauty", item_text(index.texts[drawn[-1][row]]))
        both = [*found.ids_BS[row, : found.lengths_B[row]], *answers.ids_BS[row, : answers.lengths_B[row]]]
        assert both == [*fast(f"{text} {RESPONSE} {answer}").input_ids, 2]


def test_every_task_has_ten_seen_templates_and_one_unseen_one() -> None:
    assert tuple(TEMPLATES) == P5_TASKS
    for number, (task, templates) in enumerate(TEMPLATES.items()):
        texts = [*templates.seen, templates.unseen]
        assert len(set(texts)) == NUM_SEEN + 1 == 11
        for place, text in enumerate(texts):
            assert ALL_TEMPLATES[template_number(task, place)] == text
            assert text.split().count(DATASET) == text.split().count(USER) == 1
            assert text.split().count(HISTORY) == 1 - number
            assert parts_of(text)[0] not in (USER, HISTORY)
            assert not any("{" in word and word not in (DATASET, USER, HISTORY) for word in text.split())
    assert [ALL_TEMPLATES[number] for number in EVALUATED.values()] == [
        TEMPLATES["sequential"].seen[0],
        TEMPLATES["sequential"].unseen,
    ]


def test_the_own_vocabulary_is_small_and_begins_as_t5s() -> None:
    vocabulary = own(paths(), "Beauty")
    assert vocabulary.tokens[:2] == ["<pad>", "</s>"]
    assert len(vocabulary) < 400
    assert vocabulary.tokenize("Beauty item_<CI3><CI17>") == ["▁Beauty", "▁item", "_", "<CI3>", "<CI17>"]
    assert vocabulary.tokenize("user_12345 , item_7") == ["▁user", "_", "12", "34", "5", "▁,", "▁item", "_", "7"]
    with pytest.raises(KeyError):
        vocabulary.convert_tokens_to_ids(["▁unheard"])
    bare = OwnVocabulary([], bare_numbers=True)
    assert min(bare.convert_tokens_to_ids(bare.tokenize("1234 7"))) > 1


def test_the_tokens_of_numbers_are_those_that_occur_in_them(unigram_folder: Path) -> None:
    tokenizer: Any = t5_tokenizer(unigram_folder, ())
    found = set(tokenizer.convert_ids_to_tokens(number_tokens(tokenizer, below=3000).tolist()))
    expected = {token for number in range(3000) for token in tokenizer.tokenize(str(number))}
    assert found == expected - {"▁", "</s>"}


def test_a_folder_without_a_tokenizer_of_t5s_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no readable tokenizer"):
        t5_tokenizer(tmp_path, ())
    byte_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(UserError, match="its tokenizer is not T5's"):
        t5_tokenizer(tmp_path, ())
