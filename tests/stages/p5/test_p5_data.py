"""P5's batches: which texts an epoch has, in which turns, and that a resumed epoch goes on bit for bit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.interactions import make_interactions
from tslrec.data.interactions import TEST, VALIDATION, Interactions
from tslrec.settings.rivals import P5_TASKS, P5Config
from tslrec.stages.item_index.codes import index_of_codes
from tslrec.stages.p5.data import TextBatch, TextDataModule
from tslrec.stages.p5.instances import TaskBatches, turns
from tslrec.stages.p5.pieces import WordPieces
from tslrec.stages.p5.templates import ALL_TEMPLATES, NUM_SEEN, UNSEEN, template_number
from tslrec.stages.p5.texts import TextWriter, input_text, item_text, output_text, words_of_texts
from tslrec.stages.p5.vocabulary import OwnVocabulary
from tslrec.system.errors import UserError

NUM_ITEMS = 15
CODES = index_of_codes([(), *((item % 2, item) for item in range(NUM_ITEMS))])
VOCABULARY = OwnVocabulary(words_of_texts("Toys"), CODES.new_tokens)


def market(num_users: int = 12) -> Interactions:
    draw = np.random.default_rng(0)
    return make_interactions(
        [draw.integers(1, NUM_ITEMS + 1, draw.integers(2, 30)).tolist() for _ in range(num_users)], NUM_ITEMS
    )


def data_module(interactions: Interactions, numbers: P5Config | None = None, seed: int = 0) -> TextDataModule:
    writer = TextWriter(WordPieces(VOCABULARY), "Toys", interactions.num_users, CODES.texts)
    return TextDataModule(interactions, writer, numbers or P5Config(batch_size=8, eval_batch_size=5), seed)


def text_ids(text: str) -> list[int]:
    return [*VOCABULARY.convert_tokens_to_ids(VOCABULARY.tokenize(text)), 1]


def same(first: TextBatch, second: TextBatch) -> bool:
    arrays = ((*batch.inputs, *batch.outputs) for batch in (first, second))
    return first[2:] == second[2:] and all(np.array_equal(a, b) for a, b in zip(*arrays, strict=True))


def batches_of(order: TaskBatches, count: int | None = None) -> list[list[tuple[int, int]]]:
    """The (prefix, template) pairs of the next batches."""
    found = []
    for texts in islice(iter(order), count):
        prefixes, templates = turns(texts)
        found.append(list(zip(prefixes.tolist(), templates.tolist(), strict=True)))
    return found


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    prefixes=st.integers(1, 40),
    batch=st.integers(1, 50),
    prompts=st.one_of(st.none(), st.integers(1, 4)),
    tasks=st.sampled_from([P5_TASKS, P5_TASKS[:1]]),
    share=st.floats(0.01, 1.0),
)
def test_an_epoch_has_each_text_once_and_fills_its_last_batches(
    prefixes: int, batch: int, prompts: int | None, tasks: Sequence[str], share: float
) -> None:
    order = TaskBatches(prefixes, batch, 3, tasks=tasks, prompts=prompts, share=share)
    found = batches_of(order)
    assert len(found) == len(order)
    taken = max(1, round(share * prefixes))
    texts = taken * (NUM_SEEN if prompts is None else prompts)
    steps = -(-texts // batch)
    assert len(found) == steps * len(tasks)
    for turn, task in enumerate(tasks):
        first = template_number(task, 0)
        of_task = [text for pairs in found[turn :: len(tasks)] for text in pairs]
        assert len(of_task) == steps * batch
        assert all(first <= template < first + NUM_SEEN for _, template in of_task)
        counts = Counter(prefix for prefix, _ in of_task[:texts])
        assert set(counts.values()) == {NUM_SEEN if prompts is None else prompts}
        assert len(counts) == taken
        # What fills the last batch is the task's beginning again.
        assert of_task[texts:] == (of_task * batch)[: len(of_task) - texts]
        if prompts is None:
            assert len(set(of_task[:texts])) == texts


def test_the_steps_of_beautys_scripts() -> None:
    assert len(TaskBatches(131_413, 64, 0)) == 12_320
    assert len(TaskBatches(131_413, 64, 0, tasks=["sequential"], prompts=None)) == 20_534


def test_seed_and_epoch_decide() -> None:
    first, again, other = (TaskBatches(20, 8, seed) for seed in (1, 1, 2))
    epoch = batches_of(first)
    assert epoch == batches_of(again) != batches_of(other)
    assert batches_of(first) == batches_of(again) != epoch


@pytest.mark.parametrize("stop", [0, 1, 7, 14, 15, 22])
def test_a_resumed_training_gives_the_same_batches(stop: int) -> None:
    numbers = P5Config(batch_size=32, share=0.5)
    whole, killed, resumed = (data_module(market(), numbers).train_dataloader() for _ in range(3))
    epochs = 3
    expected = [batch for _ in range(epochs) for batch in whole]
    begun: list[TextBatch] = []
    while len(begun) < stop:
        begun.extend(islice(killed, stop - len(begun)))
    resumed.load_state_dict(killed.state_dict())
    rest: list[TextBatch] = []
    while len(begun) + len(rest) < len(expected):
        rest.extend(resumed)
    assert len(begun) + len(rest) == len(expected)
    assert all(same(*pair) for pair in zip([*begun, *rest], expected, strict=True))


def test_a_batch_holds_the_texts_of_its_prefixes() -> None:
    interactions = market()
    numbers = P5Config(batch_size=8, max_history=4)
    data = data_module(interactions, numbers)
    order = TaskBatches(len(data.prefixes), 8, 0)
    for batch, pairs in zip(data.train_dataloader(), batches_of(order), strict=True):
        assert (batch.counted, batch.num_texts) == (True, 8)
        (tokens, words), (targets, _) = batch.inputs.rows(), batch.outputs.rows()
        for row, (prefix, template) in enumerate(pairs):
            user, end = int(data.prefixes.users[prefix]), int(data.prefixes.ends[prefix])
            begin = int(interactions.offsets[user])
            assert end < begin + interactions.train_lengths[user]
            history = [item_text(CODES.texts[item]) for item in interactions.items[max(begin, end - 4) : end]]
            assert tokens[row].tolist() == text_ids(input_text(ALL_TEMPLATES[template], "Toys", user, history))
            target = item_text(CODES.texts[interactions.items[end]])
            assert targets[row].tolist() == text_ids(output_text("Toys", target))
            assert len(words[row]) == len(tokens[row])


def test_each_prefix_of_a_training_part_is_an_instance_and_no_held_out_item_is() -> None:
    data = data_module(make_interactions([[1, 2, 3, 4, 5], [6, 7], [8, 9, 10]], NUM_ITEMS))
    items = data.interactions.items
    prefixes = data.prefixes
    found = [(items[a:b].tolist(), int(items[b])) for a, b in zip(prefixes.starts, prefixes.ends, strict=True)]
    assert found == [([1], 2), ([1, 2], 3), ([6], 7)]


@pytest.mark.parametrize("held_out", [TEST, VALIDATION])
def test_each_user_is_asked_once_by_each_evaluated_template(held_out: int) -> None:
    interactions = market()
    data = data_module(interactions)
    seen = data.test_dataloader() if held_out == TEST else data.val_dataloader()
    number = template_number("sequential", 0)
    for loader, template in ((seen, number), (data.evaluation(held_out, UNSEEN), number + NUM_SEEN)):
        users = []
        for batch in loader:
            tokens, words = batch.inputs.rows()
            for row, user in enumerate(batch.users_B.tolist()):
                *history, target = interactions.sequence(user)[
                    : len(interactions.sequence(user)) + 1 - held_out
                ].tolist()
                shown = [item_text(CODES.texts[item]) for item in history[-20:]]
                assert tokens[row].tolist() == text_ids(input_text(ALL_TEMPLATES[template], "Toys", user, shown))
                assert int(batch.targets_B[row]) == target
                assert batch.seen_items_L[batch.seen_rows_L == row].tolist() == history
                assert len(words[row]) == len(tokens[row])
                users.append(user)
            assert batch.counted
        assert sorted(users) == interactions.evaluated_users.tolist()


def test_a_rank_without_users_runs_one_that_does_not_count() -> None:
    data = data_module(market())
    batch = data.collate_evaluation(np.zeros(0, dtype=np.int64), TEST, template_number("sequential", 0))
    assert not batch.counted
    assert batch.users_B.tolist() == data.interactions.evaluated_users[:1].tolist()


def test_long_inputs_are_cut_and_keep_their_end() -> None:
    batches = list(data_module(market(), P5Config(batch_size=8, max_tokens=12)).train_dataloader())
    assert {int(batch.inputs.lengths_B.max()) for batch in batches} == {12}
    for batch in batches:
        tokens, words = batch.inputs.rows()
        assert {int(row[-1]) for row in tokens} == {1}
        assert {int(row[-1]) for row in words} == {0}


def test_data_without_two_items_to_train_on_are_refused() -> None:
    with pytest.raises(UserError, match="P5 needs a user with two items"):
        data_module(make_interactions([[1, 2, 3], [4]], NUM_ITEMS))
