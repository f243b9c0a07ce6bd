"""LlamaRec's instances and batches: which candidates are drawn, what is read of users, and how little is padding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from support.interactions import make_interactions
from tslrec.data.interactions import TEST, VALIDATION, Interactions
from tslrec.llm.tiny import byte_tokenizer
from tslrec.llm.title_tokens import encode_titles
from tslrec.settings.rivals import LlamaRecConfig
from tslrec.stages.llamarec.data import RankerDataModule, training_steps
from tslrec.stages.llamarec.instances import VisitBatches, training_candidates, training_prefixes
from tslrec.stages.llamarec.model import ranker_packer
from tslrec.stages.llamarec.prompt import PromptPieces, pieces_for
from tslrec.stages.llamarec.retrieval import Retrieved

NUM_ITEMS = 60
TOKENIZER = byte_tokenizer()


def market(num_users: int = 30) -> Interactions:
    draw = np.random.default_rng(0)
    return make_interactions(
        [draw.integers(1, NUM_ITEMS + 1, size=draw.integers(3, 30)).tolist() for _ in range(num_users)], NUM_ITEMS
    )


def retrieved_by(interactions: Interactions, held_out: int, length: int) -> Retrieved:
    """A retriever that draws its lists, and finds the target of each second user, of some in one protocol alone."""
    draw = np.random.default_rng(held_out)
    users = interactions.evaluated_users
    targets = interactions.items[interactions.offsets[users + 1] - held_out].astype(np.int64)
    drawn = np.stack([draw.permutation(NUM_ITEMS)[:length] + 1 for _ in range(2 * len(users))])
    lists: NDArray[np.int32] = drawn.reshape(2, len(users), length).astype(np.int32)
    lists[1, ::3] = lists[0, ::3]
    return Retrieved(users, targets, lists, draw.integers(1, NUM_ITEMS, size=(2, len(users))).astype(np.float64))


def data_module(interactions: Interactions, *, tests_lists: bool = False, **changes: Any) -> RankerDataModule:
    given: dict[str, Any] = {"candidates": 10, "batch_size": 8, "eval_batch_size": 4, "steps_per_epoch": 5, **changes}
    numbers = LlamaRecConfig(**given)
    pieces = pieces_for(TOKENIZER, numbers)
    return RankerDataModule(
        interactions,
        pieces,
        encode_titles(
            TOKENIZER, ["", *(f"item {raw_id}" for raw_id in interactions.ids.items[1:])], numbers.title_tokens
        ),
        ranker_packer(pieces, shared_prefix=True),
        numbers=numbers,
        retrieved={each: retrieved_by(interactions, each, 12) for each in (VALIDATION, TEST)},
        seed=5,
        tests_lists=tests_lists,
    )


def text_of(pieces: PromptPieces, tokens: NDArray[np.int64]) -> str:
    text = TOKENIZER.decode(tokens.tolist(), clean_up_tokenization_spaces=False)
    assert isinstance(text, str)
    return text


@settings(max_examples=100, deadline=None)
@given(num_items=st.integers(1, 300), length=st.integers(1, 60), count=st.integers(2, 26), seed=st.integers(0, 2**32))
def test_candidates_are_the_target_and_distinct_unseen_items(
    num_items: int, length: int, count: int, seed: int
) -> None:
    draw = np.random.default_rng(seed)
    before, target = draw.integers(1, num_items + 1, size=length), int(draw.integers(1, num_items + 1))
    candidates, place = training_candidates(before, target, num_items=num_items, count=count, draw=draw)
    assert candidates[place] == target
    others = set(candidates.tolist()) - {target}
    assert len(others) == len(candidates) - 1 == min(count - 1, num_items - len({*before.tolist(), target}))
    assert not others & set(before.tolist())
    assert all(1 <= each <= num_items for each in others)


def test_each_place_and_each_item_is_equally_likely() -> None:
    before, places, times = np.array([1, 2, 3]), np.zeros(5), np.zeros(41)
    for seed in range(3000):
        candidates, place = training_candidates(before, 4, num_items=40, count=5, draw=np.random.default_rng([seed]))
        places[place] += 1
        times[candidates] += 1
    assert np.abs(places / 3000 - 1 / 5).max() < 0.04
    assert not times[:4].any()
    assert np.abs(times[5:] / 3000 - 4 / 36).max() < 0.04


def test_the_instances_are_prefixes_with_a_history() -> None:
    interactions = make_interactions([[1, 2, 3, 4, 5, 6], [7, 8], [9, 1, 2]], 9)
    prefixes = training_prefixes(interactions, 2, 1.0, 0)
    shown = [
        (interactions.items[start:end].tolist(), int(interactions.items[end]))
        for start, end in zip(prefixes.starts, prefixes.ends, strict=True)
    ]
    # Of three interactions or more the last two are held out; of two, both are trained on.
    assert shown == [([1], 2), ([1, 2], 3), ([2, 3], 4), ([7], 8)]
    half = training_prefixes(interactions, 2, 0.5, 0)
    assert len(half) == 2
    assert set(half.ends) <= set(prefixes.ends)
    assert np.array_equal(half.ends, training_prefixes(interactions, 2, 0.5, 0).ends)
    assert len(training_prefixes(interactions, 2, 1e-9, 0)) == 1


def test_a_batch_knows_its_pass() -> None:
    batches = VisitBatches(10, 4, seed=0, steps_per_epoch=2)
    seen = [batch for _ in range(3) for batch in batches]
    assert [batch[1].tolist() for batch in seen] == [[0] * 4, [0] * 4, [0] * 2, [1] * 4, [1] * 4, [1] * 2]
    assert sorted(np.concatenate([batch[0] for batch in seen[:3]])) == list(range(10))


def test_candidates_depend_on_seed_pass_and_instance_alone() -> None:
    data, other = data_module(market()), data_module(market(), batch_size=3)
    assert np.array_equal(data.example(4, 0)[0], other.example(4, 0)[0])
    assert not np.array_equal(data.example(4, 0)[0], data.example(4, 1)[0])
    other.seed = 6
    assert not np.array_equal(data.example(4, 0)[0], other.example(4, 0)[0])


def test_a_training_prompt_ends_with_the_letter_of_its_target() -> None:
    interactions = market()
    data = data_module(interactions)
    for instance in range(0, len(data.prefixes), 7):
        tokens, labels = data.example(instance, 0)
        text = text_of(data.pieces, tokens)
        target = interactions.items[data.prefixes.ends[instance]]
        assert f"({text[-1]}) item i{target} " in text.replace("\n", " \n")
        assert text[-2] == "\n"
        assert labels == [tokens[-1]]
        history = interactions.items[data.prefixes.starts[instance] : data.prefixes.ends[instance]]
        assert text.count("item i") == len(history) + 10
    batch = next(iter(data.train_dataloader()))
    assert batch.labels_BA.shape == (8, 1)
    assert batch.num_labels == 8


def test_computed_tokens_of_training_steps_are_nearly_all_real() -> None:
    data = data_module(market(100), candidates=20, batch_size=16, title_tokens=32, steps_per_epoch=20)
    real, computed = 0, 0
    for batch in data.train_dataloader():
        prefix = len(data.pieces.prefix)
        assert (batch.prompts.shared_B == prefix).all()
        real += batch.prompts.num_tokens + prefix
        computed += batch.prompts.tokens_RT.numel() + prefix
    assert real / computed >= 0.9


def test_the_training_takes_whole_stretches_between_validations() -> None:
    def steps(**changes: Any) -> tuple[int, int]:
        return training_steps(1000, LlamaRecConfig(batch_size=10, **changes))

    assert steps() == (100, 100)
    assert steps(steps_per_epoch=30) == (100, 25)
    assert steps(steps_per_epoch=33) == (100, 25)
    assert steps(steps_per_epoch=None, max_epochs=3) == (300, 100)
    assert steps(steps_per_epoch=70, max_epochs=2) == (201, 67)
    assert steps(steps_per_epoch=500) == (100, 100)


@pytest.mark.parametrize("tests_lists", [False, True])
def test_the_language_model_reads_lists_that_hold_their_target(tests_lists: bool) -> None:
    interactions = market()
    data = data_module(interactions, tests_lists=tests_lists)
    retrieved, batches = data.retrieved[TEST], list(data.test_dataloader())
    holds = retrieved.holds_target(10) | tests_lists
    users = np.concatenate([batch.users_B.numpy() for batch in batches])
    assert sorted(users.tolist()) == retrieved.users_U.tolist()
    assert batches[0].prompts is None
    assert len(batches[0].users_B) == (~holds.any(axis=0)).sum()
    for batch in batches[1:]:
        assert batch.prompts is not None
        rows = np.searchsorted(retrieved.users_U, batch.users_B.numpy())
        assert ((batch.prompts_PB >= 0).numpy() == holds[:, rows]).all()
        both = (batch.prompts_PB >= 0).all(dim=0)
        same = (batch.lists_PBX[0, :, :10] == batch.lists_PBX[1, :, :10]).all(dim=1)
        # Equal candidates of both protocols are read once.
        assert ((batch.prompts_PB[0] == batch.prompts_PB[1]) == same)[both].all()
        assert len(batch.prompts.last_B) == len(set(batch.prompts_PB[batch.prompts_PB >= 0].tolist()))


def test_a_process_without_users_runs_one_that_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    # Under ZeRO-3 the processes gather the weights together, so none may leave out a pass.
    data = data_module(make_interactions([[1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 11, 12]], NUM_ITEMS), tests_lists=True)
    data.numbers.eval_batch_size = 1
    read = []
    for rank in range(2):
        for module in ("tslrec.data.evaluated_users", "tslrec.stages.llamarec.data"):
            monkeypatch.setattr(f"{module}.rank_and_world_size", lambda rank=rank: (rank, 2))
        read.append([(batch.prompts is not None, batch.counted) for batch in data.test_dataloader()])
    assert read[0] == [(False, True), (True, True), (True, True)]
    assert read[1] == [(False, True), (True, True), (True, False)]


def test_a_long_prompt_is_cut() -> None:
    data = data_module(market(), max_tokens=200)
    batch = next(iter(data.train_dataloader()))
    assert (batch.prompts.shared_B == 0).all()
    assert int(batch.prompts.positions_RT.max()) == 200
