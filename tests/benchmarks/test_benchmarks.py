"""The benchmark measures what it says; RecBole's and RecTools' sides run in environments of their own: `make bench`."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from atomic_files import write_atomic
from backbones import Measurements, check_counts
from cases import CASES, Case, Effort, library_of
from floor import epoch_flops, overlaps, sasrec
from fmlp_reference import FMLPReference, left_padded
from growth import exponent, market
from measure import MemoryAboveImports, scaled_epoch
from report import figures, of_rounds, ratio, tables
from side_tslrec import measure
from support.checkout import CHECKOUT
from tslrec.data.windows import all_prefixes

EFFORT = Effort(warm_up=1, batches=3, evaluations=2)
linux = pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="peak memory is read on Linux only")
GOLDEN = CHECKOUT.parent / "shared" / "golden" / "FMLPRec.npz"


def tiny(model: str, name: str = "tiny", data: str = "growth_1") -> Case:
    return Case(name, model, data, 16, EFFORT, None, max_len=8, batch_size=32)


@linux
@pytest.mark.parametrize("model", ["sasrec", "fmlp", "caser", "gru4rec", "lru"])
def test_a_case_of_ours_gives_a_whole_record(model: str) -> None:
    interactions = market(1, users=60, items=40)
    record = measure(tiny(model), lambda: interactions)
    assert record["targets"] == (interactions.train_lengths - 1).sum()
    assert len(record["batches"]) == EFFORT.batches
    assert len(record["evaluations"]) == EFFORT.evaluations
    assert record["evaluated_users"] == 60
    assert record["epoch_seconds"] > 0
    assert record["control_seconds"] > 0
    assert record["epoch_flops"] > 0
    json.dumps(record, allow_nan=False)


@linux
def test_timed_batches_count_the_targets_that_were_trained() -> None:
    interactions = market(1, users=60, items=40)
    effort = Effort(warm_up=0, batches=10_000, evaluations=1)
    case = Case("tiny", "sasrec", "growth_1", 16, effort, None, max_len=8, batch_size=32)
    record = measure(case, lambda: interactions)
    assert sum(count for _, count in record["batches"]) == record["targets"]
    # An epoch has fewer than the 10,000 batches that may be timed: all are, and their sum is the time of the epoch. The
    # record rounds each to 5 decimals.
    total = sum(seconds for seconds, _ in record["batches"])
    assert record["epoch_seconds_mean"] == pytest.approx(total, rel=0, abs=0.51e-5 * len(record["batches"]))


def test_an_epoch_is_scaled_by_targets_and_one_slow_batch_moves_only_the_mean() -> None:
    scaled = scaled_epoch([(1.0, 100), (2.0, 200), (30.0, 300), (3.0, 300)], targets=1000)
    assert scaled["median"] == pytest.approx(10.0)
    assert scaled["mean"] == pytest.approx(1000 * 36 / 900)


@linux
def test_memory_is_what_was_taken_since() -> None:
    memory = MemoryAboveImports()
    block = np.ones(64 * 2**20, dtype=np.uint8)
    assert memory.peak_gib() == pytest.approx(len(block) / 2**30, abs=0.03)
    del block
    memory.restart()
    assert memory.peak_gib() < 0.03


def test_the_floor_of_sasrec_is_its_matrix_products() -> None:
    case = Case("tiny", "sasrec", "growth_1", 8, EFFORT, None, max_len=4)
    # Two blocks; four D x D projections, scores and sums over 3 items, two layers of width 256; 2 operations each.
    forward = 2 * 2 * (4 * 8 * 8 + 2 * 3 * 8 + 2 * 8 * 256)
    assert sasrec(case, 3) == forward
    assert epoch_flops(case, 100, np.array([3, 3])) == 3 * 2 * (forward + 2 * 100 * 8)


def test_the_floor_of_caser_skips_padding() -> None:
    length = 7
    for height in range(1, length + 1):
        for context in range(1, length + 1):
            covered = sum(start + row < context for start in range(length - height + 1) for row in range(height))
            assert overlaps(height, context, length) == covered


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_case_has_a_floor(case: Case) -> None:
    interactions = market(1, users=60, items=40)
    prefixes = all_prefixes(interactions, case.max_len)
    softmax = 6 * len(prefixes) * 40 * case.hidden_size
    assert epoch_flops(case, 40, prefixes.ends - prefixes.starts) > softmax


def test_growth_is_linear_in_users_and_items() -> None:
    base, larger = (market(scale, users=60, items=40) for scale in (1, 4))
    assert (larger.num_users, larger.num_items) == (4 * base.num_users, 4 * base.num_items)
    assert exponent([1, 4, 16], [3.0, 12.0, 48.0]) == pytest.approx(1)
    assert exponent([1, 4, 16], [3.0, 48.0, 768.0]) == pytest.approx(2)


def side(seconds: float, gib: float, control: float | None, **more: object) -> dict[str, object]:
    return of_rounds([{**one_round(seconds, gib, control), **more}])


def one_round(seconds: float, gib: float, control: float | None) -> dict[str, object]:
    return {
        "targets": 1000,
        "evaluated_users": 50,
        "epoch_seconds": seconds,
        "epoch_seconds_mean": seconds,
        "control_seconds": control,
        "evaluation_seconds": seconds / 10,
        "training_peak_gib": gib,
        "evaluation_peak_gib": gib,
        "epoch_flops": 200e9,
        "why_no_epoch": "too long",
    }


def test_a_ratio_is_taken_within_each_round() -> None:
    # The machine halves its speed after the first round, for both.
    ours = of_rounds([one_round(seconds, 1.0, None) for seconds in (1.0, 2.0, 2.2)])
    recbole = of_rounds([one_round(seconds, 3.0, None) for seconds in (10.0, 20.0, 22.0)])
    assert ours["epoch_seconds"] == 2.0
    assert ratio(recbole, ours, "epoch_seconds") == pytest.approx(10)
    # RecBole lacks a round: the others count.
    assert ratio(of_rounds([one_round(12.0, 3.0, None)]), ours, "epoch_seconds") == pytest.approx(12)
    assert ratio(recbole, ours, "training_peak_gib") == pytest.approx(3)


def test_figures_hold_ratios_and_the_share_of_the_floor() -> None:
    records = {
        "tiny": {"tslrec": side(4.0, 0.5, 4.1), "recbole": side(80.0, 2.0, None)},
        "growth_1x": {"tslrec": side(1.0, 0.5, None)},
        "growth_4x": {"tslrec": side(16.0, 1.0, None)},
    }
    cases = [tiny("sasrec"), tiny("sasrec", "growth_1x"), tiny("sasrec", "growth_4x", "growth_4")]
    found = {name: (value, unit) for name, value, unit in figures(records, cases, gflops=100.0)}
    assert found["tiny_epoch_ratio"] == (20.0, "x")
    assert found["tiny_evaluation_ratio"] == (20.0, "x")
    assert found["tiny_training_peak_ratio"] == (4.0, "x")
    assert found["tiny_epoch_floor"] == (2.0, "s")
    assert found["tiny_epoch_floor_share"] == (50.0, "%")
    assert "tiny_whole_epoch_ratio" not in found
    assert "recbole: no whole epoch: too long" in tables(records, cases, gflops=100.0)


def three_sides() -> dict[str, dict[str, dict[str, object]]]:
    sides = {
        "tslrec": side(4.0, 0.5, 4.1),
        "recbole": side(80.0, 2.0, None),
        "rectools": side(12.0, 1.0, 8.2, own_targets=900),
    }
    return {"tiny": sides}


def test_a_third_side_has_ratios_of_its_own_and_leaves_the_others_as_they_are() -> None:
    records = three_sides()
    found = {name: value for name, value, _ in figures(records, [tiny("sasrec")], gflops=100.0)}
    assert found["tiny_epoch_ratio"] == 20.0
    assert found["tiny_epoch_ratio_rectools"] == 3.0
    assert found["tiny_whole_epoch_ratio_rectools"] == 2.0
    assert found["tiny_training_peak_ratio_rectools"] == 2.0
    assert found["tiny_epoch_rectools"] == 12.0
    two = {"tiny": {name: records["tiny"][name] for name in ("tslrec", "recbole")}}
    without = {name: value for name, value, _ in figures(two, [tiny("sasrec")], gflops=100.0)}
    assert without.items() <= found.items()
    assert all("rectools" in name for name in found.keys() - without.keys())


def test_the_table_says_what_a_side_leaves_out_of_its_epoch() -> None:
    text = tables(three_sides(), [tiny("sasrec")], gflops=100.0)
    assert "rectools: its epoch has 900 of 1,000 targets; seconds are of all of them" in text
    (ratios,) = [line.split() for line in text.splitlines() if "ratio_rectools" in line]
    assert ratios == ["ratio_rectools", "3.0x", "3.0x", "2.0x", "2.0x"]


def test_sides_that_train_or_rank_differently_are_refused() -> None:
    records = three_sides()
    check_counts(records)
    records["tiny"]["rectools"]["targets"] = 900
    with pytest.raises(AssertionError, match="the sides do not train and rank the same"):
        check_counts(records)


def test_a_record_is_of_its_own_side_alone(tmp_path: Path) -> None:
    measured = Measurements(tmp_path, {"OMP_NUM_THREADS": "2"}, quick=False, fresh=False)
    case = next(case for case in CASES if case.name == "sasrec_d64_beauty")
    keys = {each: measured.key(case, each) for each in ("tslrec", "recbole", "rectools")}
    assert len(set(keys.values())) == 3
    other = replace(case, rectools=Effort(batches=7))
    changed = {each for each, key in keys.items() if measured.key(other, each) != key}
    assert changed == {"rectools"}
    assert library_of("recbole_anomaly") == "recbole"


def test_figures_of_one_side_stand_alone() -> None:
    records = {"tiny": {"recbole": side(80.0, 2.0, None)}}
    found = {name for name, _, _ in figures(records, [tiny("sasrec")], gflops=100.0)}
    assert "tiny_epoch_recbole" in found
    assert not any("ratio" in name or "floor" in name for name in found)


def test_an_atomic_file_keeps_the_order_of_both_layouts(tmp_path: Path) -> None:
    raw = tmp_path / "raw.txt"
    raw.write_text("7 3 1\n8 3 2 4\n")
    lines = write_atomic("beauty", raw, tmp_path / "a").read_text().splitlines()
    raw.write_text("7 3\n8 3\n7 1\n8 2\n8 4\n")
    pairs = write_atomic("ml1m", raw, tmp_path / "b").read_text().splitlines()
    assert lines[1:] == ["7\t3\t0", "7\t1\t1", "8\t3\t0", "8\t2\t1", "8\t4\t2"]
    assert sorted(pairs) == sorted(lines)


@pytest.mark.skipif(not GOLDEN.exists(), reason="the reference files are not beside the checkout")
def test_the_fmlp_that_is_compared_with_equals_the_authors() -> None:
    with np.load(GOLDEN) as file:
        golden = {key: torch.from_numpy(file[key]) for key in file.files if key != "meta"}
    model = FMLPReference(500, 50, 64, 2, dropout=0.2).eval()
    model.load_state_dict({key[2:]: value for key, value in golden.items() if key.startswith("w/")})
    torch.testing.assert_close(model(golden["item_seq"]), golden["seq_output"], atol=2e-5, rtol=0)
    padded_right = torch.stack([row.roll(int(n)) for row, n in zip(*lengths_of(golden), strict=True)])
    assert torch.equal(left_padded(padded_right, golden["item_seq_len"]), golden["item_seq"])


def lengths_of(golden: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    return golden["item_seq"], golden["item_seq_len"]
