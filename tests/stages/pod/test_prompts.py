"""POD's prompts: templates, whole words and numbers, put together from pieces as the whole text would be."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.checkout import golden_folder
from support.interactions import make_interactions
from support.padding import padded
from support.toy_vocabulary import ToyVocabulary
from tslrec.stages.pod.numbering import Numbering, clean_numbering, released_numbering
from tslrec.stages.pod.parsing import items_in, number_in
from tslrec.stages.pod.pieces import PromptWriter
from tslrec.stages.pod.templates import BARE, SEQUENTIAL, TASKS, TEMPLATES, TOP_N, parts, words, written
from tslrec.stages.pod.whole_words import whole_words
from tslrec.system.errors import UserError

RIVALS = golden_folder() / "rivals"
needs_golden = pytest.mark.skipif(not (RIVALS / "POD.npz").is_file(), reason="the reference files are not here")


def by_number(users: int, items: int) -> Numbering:
    """Users and items have the numbers of their rows."""
    return Numbering(np.arange(users), np.arange(items + 1))


@pytest.fixture(scope="module")
def pod() -> tuple[Any, dict[str, Any]]:
    golden = np.load(RIVALS / "POD.npz")
    return golden, json.loads(str(golden["meta"]))


@needs_golden
def test_whole_words_are_the_authors() -> None:
    examples = json.loads((RIVALS / "whole_word.json").read_text())["pod"]
    for tokens, theirs in zip(examples["tokens"], examples["ids"], strict=True):
        assert whole_words(tokens).tolist() == theirs[: len(tokens)]
        assert not any(theirs[len(tokens) :])


@needs_golden
@pytest.mark.parametrize("part", ["", "test_"])
def test_whole_words_of_the_authors_prompts(pod: tuple[Any, dict[str, Any]], part: str) -> None:
    golden, meta = pod
    for ids, theirs in zip(golden[f"{part}input_ids"], golden[f"{part}whole_word_ids"], strict=True):
        assert whole_words([meta["vocab"][each] for each in ids]).tolist() == theirs.tolist()


@needs_golden
def test_bare_prompts_and_targets_have_the_authors_tokens(pod: tuple[Any, dict[str, Any]]) -> None:
    golden, meta = pod
    vocabulary = ToyVocabulary({token: number for number, token in enumerate(meta["vocab"])})

    def numbers(row: np.ndarray) -> list[int]:
        """The user's number and those of the items, read from the authors' tokens."""
        text = "".join(meta["vocab"][each] for each in row).replace("<pad>", "").replace("</s>", "")
        return [int(word.partition("_")[2]) for word in text.split("▁") if word]

    rows = [numbers(row) for row in golden["test_input_ids"]]
    users, histories = [row[0] for row in rows], [np.array(row[1:]) for row in rows]
    largest = max(max(users), *(int(each.max()) for each in histories))
    # Its vocabulary has no other words than those of its own templates.
    writer = PromptWriter(Lenient(vocabulary), by_number(largest + 1, largest))
    prompts = writer.prompts(SEQUENTIAL, users, histories, [-1] * len(users))
    tokens, words = prompts.rows()
    assert padded(tokens).tolist() == golden["test_input_ids"].tolist()
    assert padded(words).tolist() == golden["test_whole_word_ids"].tolist()
    assert prompts.lengths_B.tolist() == golden["test_attention_mask"].sum(axis=1).tolist()
    bare = ["".join(meta["vocab"][each] for each in row if each > 1) for row in golden["labels"]]
    targets = [int(text.removeprefix("▁")) for text in bare]
    labels = writer.labels(np.array(targets))
    assert padded(labels.rows()[0]).tolist() == golden["labels"].tolist()


class Lenient:
    """A vocabulary in which every token that it lacks is the unknown one."""

    def __init__(self, vocabulary: ToyVocabulary) -> None:
        self.vocabulary = vocabulary

    def tokenize(self, text: str) -> list[str]:
        return [each if each in self.vocabulary.ids else "<unk>" for each in self.vocabulary.tokenize(text)]

    def convert_tokens_to_ids(self, tokens: list[str]) -> list[int]:
        return self.vocabulary.convert_tokens_to_ids(tokens)


@needs_golden
def test_numbers_are_read_from_texts_as_the_authors_do(pod: tuple[Any, dict[str, Any]]) -> None:
    for text, number in pod[1]["parse"]:
        assert number_in(text) == number


def test_a_text_that_names_no_item_of_the_catalogue_names_none() -> None:
    numbering = Numbering(np.array([1]), np.array([0, 3, 1, 2]))
    assert items_in([["1", "3 4", "0", "-1"], ["4", "x", "", "2"]], numbering).tolist() == [[2, 1, 0, 0], [0, 0, 0, 3]]


def test_there_are_as_many_templates_as_in_the_public_code() -> None:
    assert {task: len(TEMPLATES[task]) for task in TASKS} == {SEQUENTIAL: 7 + 1, TOP_N: 4 + 1}
    for texts in TEMPLATES.values():
        assert texts[-1] == BARE
        assert len(set(texts)) == len(texts)


def test_the_vocabulary_of_the_templates_is_all_of_their_words() -> None:
    assert "item" in words()
    assert not any("{" in word or "_" in word for word in words())


@pytest.mark.parametrize("template", ["{user} and {items}.", "{items} alone", "{user} {items} {items},"])
def test_a_field_that_is_missing_or_glued_is_refused(template: str) -> None:
    with pytest.raises(UserError, match="with a space on either side"):
        parts(template)


@given(
    st.sampled_from(TASKS),
    st.integers(0, 9),
    st.lists(
        st.tuples(st.integers(0, 998), st.lists(st.integers(1, 12345), min_size=1, max_size=30)), min_size=1, max_size=4
    ),
)
def test_pieces_give_the_tokens_and_whole_words_of_the_whole_text(
    task: int, template: int, samples: list[tuple[int, list[int]]]
) -> None:
    template %= len(TEMPLATES[task])
    users, shown = [user for user, _ in samples], [np.array(items) for _, items in samples]
    prompts = WRITER.prompts(task, users, shown, [template] * len(samples))
    ends = np.cumsum(prompts.lengths_B)
    for (user, items), length, end in zip(samples, prompts.lengths_B, ends, strict=True):
        tokens = [*VOCABULARY.tokenize(written(TEMPLATES[task][template], user, items)), "</s>"]
        assert prompts.ids_N[end - length : end].tolist() == VOCABULARY.convert_tokens_to_ids(tokens)
        assert prompts.whole_words_N[end - length : end].tolist() == whole_words(tokens).tolist()
    assert ends[-1] == len(prompts.ids_N)


VOCABULARY = ToyVocabulary()
WRITER = PromptWriter(VOCABULARY, by_number(999, 12345))


HISTORIES = [[5, 3, 3, 8, 1], [8, 2, 5, 9], [4, 6], [7, 5, 3, 2, 6]]


def test_released_numbers_are_in_order_of_appearance_test_items_included() -> None:
    numbering = released_numbering(make_interactions(HISTORIES))
    assert numbering.of_user_U.tolist() == [1, 2, 3, 4]
    assert [numbering.of_item_I[item] for item in (5, 3, 8, 1, 2, 9, 4, 6, 7)] == list(range(1, 10))
    assert numbering.items_by_number[numbering.of_item_I].tolist() == list(range(10))


def test_clean_numbers_do_not_depend_on_held_out_items() -> None:
    swapped = [[*history[:-2], *history[:-3:-1]] if len(history) > 2 else history for history in HISTORIES]
    first, second = (clean_numbering(make_interactions(each), seed=3) for each in (HISTORIES, swapped))
    assert first.of_item_I.tolist() == second.of_item_I.tolist()
    assert first.of_user_U.tolist() == second.of_user_U.tolist()
    assert released_numbering(make_interactions(HISTORIES)).of_item_I.tolist() != (
        released_numbering(make_interactions(swapped)).of_item_I.tolist()
    )


def test_clean_numbers_follow_training_parts_and_then_a_random_order() -> None:
    numbering = clean_numbering(make_interactions(HISTORIES), seed=3)
    order = np.argsort(numbering.of_user_U)
    trained = [HISTORIES[user][:-2] if len(HISTORIES[user]) > 2 else HISTORIES[user] for user in order]
    expected = list(dict.fromkeys(item for items in trained for item in items))
    assert numbering.items_by_number[1 : len(expected) + 1].tolist() == expected
    assert sorted(numbering.of_item_I.tolist()) == list(range(10))
    others = {tuple(clean_numbering(make_interactions(HISTORIES), seed).of_item_I.tolist()) for seed in range(8)}
    assert len(others) > 1


def test_codes_are_the_targets_without_their_end() -> None:
    codes = WRITER.item_codes()
    assert codes[0] == ()
    assert len(codes) == 12345 + 1 == len(set(codes))
    for item in (1, 10, 345, 12345):
        assert [*codes[item], 1] == WRITER.labels(np.array([item])).ids_N.tolist()


class Gluing(ToyVocabulary):
    """Makes one token of `.` and the word after it."""

    def tokenize(self, text: str) -> list[str]:
        return super().tokenize(text.replace(" . ", ". "))


def test_a_tokenizer_that_looks_at_neighbouring_words_is_refused() -> None:
    with pytest.raises(UserError, match="llm: its tokenizer cuts the words of 'user_1 went from one item"):
        PromptWriter(Gluing(), Numbering(np.array([1, 2]), np.array([0, 1, 2])))
