"""POD's samples and batches: what may be drawn, in whose turn, and that seed and step alone decide."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import islice
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from support.interactions import make_interactions
from support.toy_vocabulary import ToyVocabulary
from tslrec.data.interactions import Interactions
from tslrec.evaluation.hooks import EvaluatedUsers
from tslrec.settings.rivals import PODConfig
from tslrec.stages.pod.data import PODDataModule, PromptBatch, numbering_of
from tslrec.stages.pod.parsing import listed_users
from tslrec.stages.pod.pieces import PromptWriter
from tslrec.stages.pod.rotation import Rotation
from tslrec.stages.pod.samples import Candidates, draw_others, segments
from tslrec.stages.pod.stopping import TooManyWorse
from tslrec.stages.pod.templates import SEQUENTIAL, TOP_N
from tslrec.system.errors import UserError

NUMBERS = PODConfig(batch_size=4, candidates=6, history=3, eval_batch_size=4)


def market(users: int = 11, items: int = 30) -> Interactions:
    draw = np.random.default_rng(5)
    return make_interactions([draw.integers(1, items + 1, 3 + user % 5).tolist() for user in range(users)] + [[items]])


def module_of(interactions: Interactions, numbers: PODConfig = NUMBERS, seed: int = 7) -> PODDataModule:
    writer = PromptWriter(ToyVocabulary(), numbering_of(interactions, numbers, seed))
    return PODDataModule(interactions, writer, numbers, seed)


def same(one: PromptBatch, other: PromptBatch) -> bool:
    arrays = ((*batch.prompts, *batch.targets) for batch in (one, other))
    numbers = ((batch.task, *batch[3:]) for batch in (one, other))
    return len(set(numbers)) == 1 and all(np.array_equal(a, b) for a, b in zip(*arrays, strict=True))


def read(batch: PromptBatch, module: PODDataModule) -> list[tuple[list[str], str]]:
    """Each prompt's words and its target, as texts."""
    texts = {number: token for token, number in cast(Any, module).vocabulary.ids.items()}

    def text(ids: np.ndarray) -> str:
        return "".join(texts[each] for each in ids[:-1].tolist()).replace("▁", " ").strip()

    return [
        (text(prompt).split(), text(target))
        for prompt, target in zip(batch.prompts.rows()[0], batch.targets, strict=True)
    ]


def readable(interactions: Interactions, numbers: PODConfig = NUMBERS) -> PODDataModule:
    """A module that keeps its vocabulary, so that a test can read the batches."""
    vocabulary = ToyVocabulary()
    module = PODDataModule(interactions, PromptWriter(vocabulary, numbering_of(interactions, numbers, 7)), numbers, 7)
    cast(Any, module).vocabulary = vocabulary
    return module


@given(st.lists(st.integers(2, 60), min_size=1, max_size=20), st.integers(1, 25), st.integers(0, 9))
def test_a_segment_lies_in_the_training_part(lengths: list[int], most: int, seed: int) -> None:
    begins, targets = segments(np.array(lengths), most, np.random.default_rng(seed))
    assert (begins >= 0).all()
    assert (begins < targets).all()
    assert (targets - begins <= most).all()
    assert (targets < np.array(lengths)).all()


def test_every_beginning_and_every_end_behind_it_is_drawn_equally_often() -> None:
    begins, targets = segments(np.full(30000, 4), 20, np.random.default_rng(0))
    drawn = Counter(zip(begins.tolist(), targets.tolist(), strict=True))
    shares = {pair: count / 30000 for pair, count in drawn.items()}
    expected = {(0, 1): 1 / 9, (0, 2): 1 / 9, (0, 3): 1 / 9, (1, 2): 1 / 6, (1, 3): 1 / 6, (2, 3): 1 / 3}
    assert shares == pytest.approx(expected, abs=0.01)


@given(st.integers(1, 40), st.sets(st.integers(1, 40), max_size=12), st.integers(0, 50), st.integers(0, 9))
def test_other_items_are_distinct_and_none_that_is_excluded(
    num_items: int, excluded: set[int], count: int, seed: int
) -> None:
    excluded = {item for item in excluded if item <= num_items}
    found = draw_others(num_items, np.array(sorted(excluded), dtype=np.int64), count, np.random.default_rng(seed))
    assert len(found) == min(count, num_items - len(excluded)) == len(set(found.tolist()))
    assert not excluded & set(found.tolist())
    assert all(1 <= item <= num_items for item in found.tolist())


@pytest.mark.parametrize("num_items", [12, 400])
def test_other_items_are_drawn_equally_often(num_items: int) -> None:
    draw = np.random.default_rng(0)
    counts = Counter(item for _ in range(3000) for item in draw_others(num_items, np.array([2, 5]), 3, draw).tolist())
    assert set(counts) == set(range(1, num_items + 1)) - {2, 5}
    mean = 9000 / (num_items - 2)
    assert all(abs(count - mean) < 6 * mean**0.5 for count in counts.values())


@pytest.mark.parametrize("knows", [True, False])
def test_only_the_public_codes_choice_knows_held_out_items(*, knows: bool) -> None:
    candidates = Candidates(make_interactions([[1, 2, 3, 4], [5, 6, 7, 8]]), 8, knows_held_out=knows)
    offered = set(candidates.draw(0, 1, np.random.default_rng(0)).tolist())
    # User 0 trains on items 1 and 2; 3 and 4 are held out.
    assert offered == ({1, 5, 6, 7, 8} if knows else {1, 3, 4, 5, 6, 7, 8})


USERS = {SEQUENTIAL: np.arange(10), TOP_N: np.arange(13)}


def test_tasks_take_turns_and_each_walks_through_its_users() -> None:
    rotation = Rotation(USERS, 4, seed=1)
    # Two full batches of the one task, three of the other.
    assert len(rotation) == 2 + 3
    turns = [rotation.turn(number) for number in range(24)]
    assert [turn.task for turn in turns] == [SEQUENTIAL, TOP_N] * 12
    for task, users in USERS.items():
        mine = [turn.users for turn in turns if turn.task == task]
        each = -(-len(users) // 4)
        passes = [np.concatenate(mine[begin : begin + each]) for begin in range(0, 12, each)]
        assert all(sorted(each.tolist()) == users.tolist() for each in passes)
        assert len({tuple(each.tolist()) for each in passes}) == len(passes)


def test_the_released_rotation_begins_in_the_datas_order() -> None:
    rotation = Rotation(USERS, 4, seed=1, shuffle_first=False)
    assert [turn.users.tolist() for turn in map(rotation.turn, (0, 2, 4))] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert rotation.turn(6).users.tolist() != [0, 1, 2, 3]


def test_beautys_epoch_has_the_steps_of_the_public_code_without_explanations() -> None:
    everyone = np.arange(22363)
    assert len(Rotation({SEQUENTIAL: everyone, TOP_N: everyone}, 64, seed=0)) == 698
    assert len(Rotation({SEQUENTIAL: everyone[:1], TOP_N: everyone[:1]}, 64, seed=0)) == 1


@pytest.mark.parametrize("released", [True, False])
@pytest.mark.parametrize("ahead", [0, 3])
def test_a_resumed_training_goes_on_with_the_same_batches(ahead: int, *, released: bool) -> None:
    numbers = replace(NUMBERS, released=released)
    whole = module_of(market(), numbers)
    epochs = [list(whole.train_dataloader()) for _ in range(3)]
    steps = len(epochs[0])
    for done in (1, steps, steps + 2):
        first = module_of(market(), numbers).train_dataloader()
        first.prefetch(ahead)
        for _ in range(done // steps):
            list(first)
        taken = iter(first)
        list(islice(taken, done % steps))
        state = first.state_dict()
        first.close()
        second = module_of(market(), numbers).train_dataloader()
        second.load_state_dict(state)
        rest = [batch for _ in range(3 - done // steps) for batch in second]
        expected = [batch for epoch in epochs for batch in epoch][done:]
        assert len(rest) == len(expected)
        assert all(same(one, other) for one, other in zip(rest, expected, strict=True))


def test_epochs_and_seeds_draw_other_samples() -> None:
    module = module_of(market())
    first, second = list(module.train_dataloader()), list(module.train_dataloader())
    others = list(module_of(market(), seed=8).train_dataloader())
    for batches in (second, others):
        assert not any(same(one, other) for one, other in zip(first, batches, strict=True))


def test_prompts_hold_training_items_of_the_user_and_the_right_one() -> None:
    interactions = market()
    module = readable(interactions)
    numbering = numbering_of(interactions, NUMBERS, 7)
    trained = {
        f"user_{numbering.of_user_U[user]}": [
            f"item_{numbering.of_item_I[item]}"
            for item in interactions.sequence(user)[: interactions.train_lengths[user]].tolist()
        ]
        for user in range(interactions.num_users)
    }
    batches = [batch for _ in range(20) for batch in module.train_dataloader()]
    assert {batch.task for batch in batches} == {SEQUENTIAL, TOP_N}
    for batch in batches:
        for words, target in read(batch, module):
            (user,) = [word for word in words if word.startswith("user_")]
            items = [word for word in words if word.startswith("item_")]
            if batch.task == SEQUENTIAL:
                places = range(len(trained[user]))
                segment = [*items, f"item_{target}"]
                assert len(items) <= NUMBERS.history
                assert any(trained[user][place : place + len(segment)] == segment for place in places)
            else:
                assert len(items) == NUMBERS.candidates == len(set(items))
                assert f"item_{target}" in trained[user]
                assert set(items) & set(trained[user]) == {f"item_{target}"}


def test_validation_and_test_are_bare_and_show_the_last_items() -> None:
    interactions = market()
    module, numbering = readable(interactions), numbering_of(interactions, NUMBERS, 7)
    evaluated = interactions.evaluated_users
    tested = [batch for batch in module.test_dataloader() if batch is not None]
    assert sorted(torch.cat([batch.users_B for batch in tested]).tolist()) == evaluated.tolist()
    for batch in tested:
        for row, (words, target) in enumerate(read(batch.samples, module)):
            user = int(batch.users_B[row])
            *before, last = interactions.sequence(user).tolist()
            shown = [f"item_{numbering.of_item_I[item]}" for item in before[-NUMBERS.history :]]
            assert words == [f"user_{numbering.of_user_U[user]}", *shown]
            assert (int(batch.targets_B[row]), target) == (last, str(numbering.of_item_I[last]))
            assert batch.seen_items_S[batch.seen_rows_S == row].tolist() == before
    validated = list(module.val_dataloader())
    by_task = {task: [b for b in validated if b.task == task] for task in (SEQUENTIAL, TOP_N)}
    for task, batches in by_task.items():
        assert sum(each.num_samples for each in batches) == len(evaluated)
        for each in batches:
            for words, target in read(each, module):
                assert words[0].startswith("user_")
                assert all(word.startswith("item_") for word in words[1:])
                assert (f"item_{target}" in words) == (task == TOP_N) or task == SEQUENTIAL
    assert all(same(one, other) for one, other in zip(validated, module.val_dataloader(), strict=True))


def test_texts_become_lists_by_both_protocols() -> None:
    interactions = make_interactions([[1, 2, 3, 4], [4, 3, 2, 1, 5]])
    module, numbering = module_of(interactions), numbering_of(interactions, NUMBERS, 7)
    (batch,) = module.test_dataloader()
    assert batch is not None

    def texts(*items: int) -> list[str]:
        return [str(numbering.of_item_I[item]) if item else "none" for item in items]

    beams = [texts(1, 0, 5, 5, 4, *[0] * 15), texts(5, 4, *[0] * 18)]
    listed = listed_users(EvaluatedUsers(*batch[1:]), beams, numbering)
    assert listed.users.targets_B.tolist() == [4, 5]
    assert listed.lists_BK.tolist() == [[1, 0, 5, 0, 4, *[0] * 5], [5, 4, *[0] * 8]]
    assert listed.masked_BK is not None
    assert listed.masked_BK.tolist() == [[0, 5, 0, 4, *[0] * 6], [5, *[0] * 9]]


def test_two_processes_share_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    alone = next(iter(module_of(market()).train_dataloader()))
    rows = []
    for rank in range(2):
        monkeypatch.setattr("tslrec.data.batching.rank_and_world_size", lambda rank=rank: (rank, 2))
        share = next(iter(module_of(market()).train_dataloader()))
        assert (share.counted, share.num_samples, share.num_labels) == (True, 4, alone.num_labels)
        assert alone.num_labels == sum(map(len, alone.targets))
        rows.append([each.tolist() for each in share.prompts.rows()[0]])
    assert [rows[place % 2][place // 2] for place in range(4)] == [each.tolist() for each in alone.prompts.rows()[0]]


def test_data_with_nothing_to_train_on_are_refused() -> None:
    with pytest.raises(UserError, match="no user has two training items"):
        module_of(make_interactions([[1, 2, 3], [3, 1, 2]]))


def values_until_stopped(callback: TooManyWorse, losses: list[float]) -> int:
    """How many validations a training runs."""
    trainer = SimpleNamespace(sanity_checking=False, should_stop=False, callback_metrics={})
    for number, loss in enumerate(losses, start=1):
        trainer.callback_metrics["validation/loss"] = torch.tensor(loss)
        callback.on_validation_end(cast(Any, trainer), cast(Any, None))
        if trainer.should_stop:
            return number
    return 0


def test_the_count_of_worse_epochs_is_never_reset() -> None:
    losses = [5.0, 6.0, 4.0, 4.0, 3.0, 9.0, 1.0]
    assert values_until_stopped(TooManyWorse("validation/loss", 3), losses) == 6
    assert values_until_stopped(TooManyWorse("validation/loss", 4), losses) == 0


def test_the_count_is_part_of_a_checkpoint() -> None:
    first, second = TooManyWorse("validation/loss", 3), TooManyWorse("validation/loss", 3)
    assert values_until_stopped(first, [5.0, 6.0, 7.0]) == 0
    second.load_state_dict(first.state_dict())
    assert values_until_stopped(second, [5.5]) == 1
