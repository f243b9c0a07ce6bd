"""Ranks in generated lists: the places of targets, and of beams that name no item or one twice."""

from __future__ import annotations

import json
from math import inf, log2

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from support.checkout import golden_folder
from tslrec.evaluation.chosen_metrics import RankingMetrics
from tslrec.evaluation.generated_lists import free_text_lists, list_ranks, without_repeats

RIVALS = golden_folder() / "rivals"
NO_PAIRS = torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)


def metrics_of(masked_U: np.ndarray, unmasked_U: np.ndarray, names: list[str]) -> dict[str, float]:
    metrics = RankingMetrics(names)
    metrics.update(torch.from_numpy(masked_U), torch.from_numpy(unmasked_U))
    return metrics.compute()


def test_a_rank_is_the_first_place_of_the_target() -> None:
    lists = np.array([[4, 2, 4, 0], [0, 0, 3, 1], [1, 2, 3, 4]])
    assert list_ranks(lists, np.array([4, 1, 5])).tolist() == [1, 4, inf]


@pytest.mark.skipif(not (RIVALS / "P5.npz").is_file(), reason="the reference files are not here")
def test_ranks_and_metrics_of_p5s_lists_are_the_authors() -> None:
    golden = np.load(RIVALS / "P5.npz")
    ranks = {}
    for protocol, name in (("masked", "masked_beam_items"), ("unmasked", "beam_items")):
        ranks[protocol] = list_ranks(golden[name], golden["target"])
        theirs = golden[f"rank_{protocol}"]
        assert ranks[protocol].tolist() == np.where(theirs == 0, inf, theirs).tolist()
    found = metrics_of(ranks["masked"], ranks["unmasked"], ["HR@5", "HR@10", "NDCG@5", "NDCG@10"])
    for protocol, theirs in json.loads(str(golden["meta"]))["metrics_beam"].items():
        for name, value in theirs.items():
            assert found[f"{protocol}/{name.replace('hit', 'HR').replace('ndcg', 'NDCG')}"] == pytest.approx(value)


@pytest.mark.skipif(not (RIVALS / "POD.npz").is_file(), reason="the reference files are not here")
def test_an_item_that_stands_twice_hits_once() -> None:
    example = json.loads(str(np.load(RIVALS / "POD.npz")["meta"]))["metrics_with_doubles"]
    users, length = list(example["targets"]), max(map(len, example["lists"].values()))
    lists = np.array([example["lists"][user] for user in users])
    targets = np.array([example["targets"][user][0] for user in users])
    _, unmasked = free_text_lists(torch.from_numpy(lists), *NO_PAIRS, length)
    found = metrics_of(list_ranks(lists, targets), list_ranks(unmasked.numpy(), targets), ["HR@1", f"HR@{length}"])
    share_of_users = np.mean([target in row for target, row in zip(targets, lists, strict=True)])
    for protocol in ("masked", "unmasked"):
        # At the first place no repeat can count: there the authors' metric is ours.
        assert found[f"{protocol}/HR@1"] == example["authors"]["1"][0]
        assert found[f"{protocol}/HR@{length}"] == share_of_users < example["authors"][str(length)][0]


def test_texts_without_an_item_and_repeats_keep_their_places() -> None:
    beams = torch.tensor([[7, 0, 7, 3, 0, 5]])
    seen = torch.tensor([0]), torch.tensor([3])
    masked, unmasked = free_text_lists(beams, *seen, 4)
    assert unmasked.tolist() == [[7, 0, 0, 3]]
    assert masked.tolist() == [[7, 0, 0, 0]]
    assert list_ranks(unmasked.numpy(), np.array([3])).tolist() == [4]


def test_seen_items_are_struck_out_of_all_beams_with_their_repeats() -> None:
    beams = torch.tensor([[2, 6, 2, 9, 4], [2, 6, 2, 9, 4]])
    seen = torch.tensor([0, 0]), torch.tensor([2, 8])
    masked, unmasked = free_text_lists(beams, *seen, 3)
    assert masked.tolist() == [[6, 9, 4], [2, 6, 0]]
    assert unmasked.tolist() == [[2, 6, 0], [2, 6, 0]]


@given(st.data())
def test_lists_are_those_of_a_plain_walk_through_the_beams(data: st.DataObject) -> None:
    users, width = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 8))
    beams = data.draw(arrays.arrays(np.int64, (users, width), elements=st.integers(0, 6)))
    pairs = data.draw(st.lists(st.tuples(st.integers(0, users - 1), st.integers(1, 6)), max_size=9))
    length = data.draw(st.integers(1, width))
    seen = torch.tensor(pairs, dtype=torch.int64).reshape(-1, 2)
    masked, unmasked = free_text_lists(torch.from_numpy(beams), seen[:, 0], seen[:, 1], length)
    for user in range(users):
        left = [each for each in beams[user] if (user, each) not in pairs]
        for items, found in ((beams[user], unmasked), (left, masked)):
            walked = [int(item) if item not in items[:place] else 0 for place, item in enumerate(list(items))]
            assert found[user].tolist() == (walked + [0] * width)[:length]
    assert without_repeats(unmasked).equal(unmasked)


def test_ndcg_of_a_place() -> None:
    ranks = list_ranks(np.array([[5, 1, 2]]), np.array([2]))
    assert metrics_of(ranks, ranks, ["NDCG@3", "MRR@3"]) == pytest.approx(
        {"masked/NDCG@3": 1 / log2(4), "masked/MRR@3": 1 / 3, "unmasked/NDCG@3": 1 / log2(4), "unmasked/MRR@3": 1 / 3}
    )
