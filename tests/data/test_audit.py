"""The audit's numbers: known facts about the public files, and small data sets counted by hand."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.checkout import CHECKOUT
from support.interactions import make_interactions
from tslrec.cli.main import main
from tslrec.data.audit import Audit, audit
from tslrec.data.statistics import Fraction, fraction

DATA = CHECKOUT.parent / "shared" / "data"
FILES = {"beauty": "beauty/beauty.txt", "yelp": "yelp/yelp.txt", "ml1m": "ml-1m/ml-1m.txt"}
TABLE_1 = {
    "beauty": (22_363, 12_101, 198_502, "8.9"),
    "yelp": (30_431, 20_033, 316_354, "10.4"),
    "ml1m": (6_040, 3_416, 999_611, "165.5"),
}
FACTS: dict[str, tuple[int, int]] = {
    "evaluation.repeats.count": (0, 11_830),
    "evaluation.unreachable_test.count": (0, 2_027),
    "evaluation.cold_test.count": (138, 73),
    "truncation.long_test_inputs.count": (144, 336),
    "training.prefixes": (131_413, 225_061),
    "training.recent_positions": (150_258, 247_854),
}
SHARES = {
    "evaluation.unreachable_test.share": ("0.00%", "6.66%"),
    "evaluation.cold_test.share": ("0.62%", "0.24%"),
}


@cache
def audited_file(name: str) -> dict[str, Any]:
    """The JSON that `tslrec audit` writes for a public data set."""
    path = DATA / FILES[name]
    if not path.is_file():
        pytest.skip("the data sets are not beside the checkout")
    with tempfile.TemporaryDirectory() as folder:
        written = Path(folder) / "audit.json"
        main(["audit", f"data={name}", f"data.path={path}", "training.max_len=50", "--json", str(written)])
        return json.loads(written.read_text())


def fact(name: str, key: str) -> Any:
    value = audited_file(name)
    for step in key.split("."):
        value = value[step]
    return value


@pytest.mark.parametrize("name", FILES)
def test_a_public_file_gives_its_row_of_table_1(name: str) -> None:
    row = fact(name, "table1")
    found = (row["users"], row["items"], row["interactions"], f"{row['average_length']:.1f}")
    assert found == TABLE_1[name]


@pytest.mark.parametrize("key", FACTS)
@pytest.mark.parametrize("name", ["beauty", "yelp"])
def test_a_known_fact_of_a_public_file_is_reproduced(name: str, key: str) -> None:
    assert fact(name, key) == FACTS[key][["beauty", "yelp"].index(name)]


@pytest.mark.parametrize("key", SHARES)
@pytest.mark.parametrize("name", ["beauty", "yelp"])
def test_a_known_share_of_a_public_file_is_reproduced(name: str, key: str) -> None:
    assert f"{fact(name, key):.2%}" == SHARES[key][["beauty", "yelp"].index(name)]


def audited(
    sequences: Sequence[Sequence[int]], times: Sequence[Sequence[float]] | None = None, max_len: int = 50
) -> Audit:
    """The audit of the given item sequences, optionally with a timestamp for each interaction."""
    interactions = make_interactions(sequences)
    if times is not None:
        interactions = replace(interactions, timestamps=np.concatenate([np.asarray(each) for each in times]))
    return audit(interactions, max_len)


def test_a_fraction_of_nothing_has_the_share_0() -> None:
    assert fraction(0, 0) == Fraction(0, 0, 0.0)
    assert fraction(1, 4) == Fraction(1, 4, 0.25)


def test_table_1_counts_the_items_that_have_ids() -> None:
    row = audited([[1, 2, 3], [2, 4]]).table1
    assert row == {"users": 2, "items": 4, "interactions": 5, "density": 5 / 8, "average_length": 2.5}


def test_lengths_include_all_users() -> None:
    lengths = audited([[1] * length for length in (10, 1, 3, 2, 4)]).lengths
    assert (lengths.shortest, lengths.first_quartile, lengths.median) == (1, 2.0, 3.0)
    assert (lengths.third_quartile, lengths.longest, lengths.mean) == (4.0, 10, 4.0)


def test_users_with_fewer_than_three_interactions_are_not_evaluated() -> None:
    facts = audited([[1, 2, 3], [1, 2], [1]]).evaluation
    assert facts.too_short == fraction(2, 3)
    assert facts.cold_test.of == facts.unreachable_test.of == 1


def test_every_further_interaction_with_the_same_item_is_a_repeat() -> None:
    assert audited([[1, 2, 1, 1], [2, 2], [1, 2, 3]]).evaluation.repeats == fraction(3, 9)


def test_a_test_target_in_training_or_as_validation_item_is_unreachable() -> None:
    sequences = [[1, 2, 3, 1], [2, 3, 4, 4], [3, 3, 2], [1, 2, 3]]
    assert audited(sequences).evaluation.unreachable_test == fraction(2, 4)


def test_a_validation_target_is_unreachable_by_training_items_alone() -> None:
    sequences = [[3, 3, 2], [1, 2, 2], [1, 2, 1]]
    assert audited(sequences).evaluation.unreachable_validation == fraction(1, 3)


def test_repeats_of_a_user_who_is_not_evaluated_make_no_target_unreachable() -> None:
    facts = audited([[2, 2], [1, 2, 3], [3, 3], [4]]).evaluation
    assert (facts.unreachable_test, facts.unreachable_validation) == (fraction(0, 1), fraction(0, 1))


def test_a_target_that_is_in_no_training_part_is_cold() -> None:
    # Training parts: 1 2, 2. Test targets: 4, 1. Validation targets: 3, 3.
    facts = audited([[1, 2, 3, 4], [2, 3, 1]]).evaluation
    assert (facts.cold_test, facts.cold_validation) == (fraction(1, 2), fraction(2, 2))


def test_all_items_of_a_user_who_is_not_evaluated_are_trained_and_not_cold() -> None:
    facts = audited([[1, 2, 3], [3, 2]]).evaluation
    assert (facts.cold_test, facts.cold_validation) == (fraction(0, 1), fraction(0, 1))


def test_training_instances_by_both_rules() -> None:
    # Training parts have 4, 1 and 2 interactions.
    sequences = [[1, 2, 3, 4, 5, 6], [1, 2, 3], [1, 2]]
    facts = audited(sequences).training
    assert (facts.interactions, facts.prefixes, facts.recent_positions) == (fraction(7, 11), 4, 7)
    assert audited(sequences, max_len=3).training.recent_positions == 6


def test_truncation_counts_inputs_longer_than_max_len() -> None:
    # Test inputs have 5, 2 and 2 items; prefixes of 1, 2 and 3 items; training parts of 4, 1 and 1.
    facts = audited([[1, 2, 3, 4, 5, 6], [1, 2, 3], [4, 5, 6]], max_len=2).truncation
    assert facts.long_test_inputs == fraction(1, 3)
    assert facts.cut_test_items == fraction(3, 9)
    assert facts.cut_targets == fraction(1, 3)
    assert facts.old_interactions == fraction(2, 6)


def test_the_number_of_most_popular_items_is_rounded_up() -> None:
    # 11 items: 1 % is one item, 10 % are two.
    facts = audited([[1] * 6 + [2] * 3, [*range(3, 12)]]).popularity
    assert (facts.top_1_percent, facts.top_10_percent) == (fraction(6, 18), fraction(9, 18))


def test_without_timestamps_there_are_no_time_facts() -> None:
    facts = audited([[1, 2, 3]])
    assert facts.times is None
    assert facts.duplicates is None


def test_ties_are_within_a_user() -> None:
    facts = audited([[1, 2, 3, 4], [1, 2, 3], [1, 2]], [[1, 1, 2, 5], [5, 5, 5], [5, 6]]).times
    assert facts is not None
    assert facts.tied == fraction(5, 9)


def test_users_whose_split_depends_on_file_order_are_counted() -> None:
    times = [[1, 2, 3], [1, 2, 2], [1, 1, 2], [4, 4, 4], [7, 7]]
    facts = audited([[1, 2, 3]] * 4 + [[1, 2]], times).times
    assert facts is not None
    assert (facts.tied_test, facts.tied_validation) == (fraction(2, 4), fraction(2, 4))


def test_training_after_the_test_is_leakage() -> None:
    # Training: item 1 at 1, item 3 at 10. The first user is tested with item 3 at 3, the second with item 1 at 12.
    facts = audited([[1, 2, 3], [3, 4, 1]], [[1, 2, 3], [10, 11, 12]]).times
    assert facts is not None
    assert facts.users_before_training_ends == fraction(1, 2)
    assert facts.users_target_trained_later == fraction(1, 2)
    assert facts.mean_future_share == pytest.approx((1 / 2 + 0) / 2)


def test_training_at_the_same_time_as_the_test_is_not_later() -> None:
    facts = audited([[1, 2, 3], [3, 4, 1]], [[1, 2, 10], [10, 11, 12]]).times
    assert facts is not None
    assert facts.users_before_training_ends.count == facts.users_target_trained_later.count == 0
    assert facts.mean_future_share == 0


def test_later_training_on_other_items_does_not_leak_the_target() -> None:
    facts = audited([[1, 2, 3], [2, 3, 3]], [[1, 2, 3], [10, 11, 12]]).times
    assert facts is not None
    assert facts.users_before_training_ends == fraction(1, 2)
    assert facts.users_target_trained_later == fraction(0, 2)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("dtype", [np.int64, np.float64])
def test_random_histories_agree_with_counting_one_by_one(seed: int, dtype: type) -> None:
    draw = np.random.default_rng(seed)
    sequences = [draw.integers(1, 31, size=draw.integers(1, 9)).tolist() for _ in range(40)]
    times: list[list[float]] = [np.sort(draw.integers(-20, 20, size=len(x))).astype(dtype).tolist() for x in sequences]
    evaluated = [user for user, each in enumerate(sequences) if len(each) >= 3]
    trained = [
        (user, item, time)
        for user, (items, clock) in enumerate(zip(sequences, times, strict=True))
        for position, (item, time) in enumerate(zip(items, clock, strict=True))
        if len(items) < 3 or position < len(items) - 2
    ]

    def others_later(user: int) -> list[int]:
        return [item for other, item, time in trained if other != user and time > times[user][-1]]

    facts = audited(sequences, times)
    assert facts.times is not None
    evaluation, found = facts.evaluation, facts.times
    everything = {item for _, item, _ in trained}
    assert evaluation.repeats.count == sum(len(each) - len(set(each)) for each in sequences)
    assert evaluation.unreachable_test.count == sum(sequences[u][-1] in sequences[u][:-1] for u in evaluated)
    assert evaluation.unreachable_validation.count == sum(sequences[u][-2] in sequences[u][:-2] for u in evaluated)
    assert evaluation.cold_test.count == sum(sequences[u][-1] not in everything for u in evaluated)
    assert evaluation.cold_validation.count == sum(sequences[u][-2] not in everything for u in evaluated)
    assert found.users_before_training_ends.count == sum(bool(others_later(u)) for u in evaluated)
    assert found.users_target_trained_later.count == sum(sequences[u][-1] in others_later(u) for u in evaluated)
    shares = [len(others_later(u)) / len(trained) for u in evaluated]
    assert found.mean_future_share == pytest.approx(sum(shares) / len(shares))
    neighbours = sum(
        any(0 <= near < len(clock) and clock[near] == clock[position] for near in (position - 1, position + 1))
        for clock in times
        for position in range(len(clock))
    )
    assert found.tied.count == neighbours
