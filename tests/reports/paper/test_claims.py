"""What is said of the paper's claims, from made-up cells."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from support.checkout import CHECKOUT
from support.made_cells import HITS, make_cell
from tslrec.evaluation.significance import Comparison
from tslrec.reports.paper.baseline_claim import SAME
from tslrec.reports.paper.baselines import LLM_BASELINES
from tslrec.reports.paper.cells import CellResult
from tslrec.reports.paper.claims import FAILS, HOLDS, SIGNS, UNMEASURED, UNSELECTED, rules_out, verdict
from tslrec.reports.paper.document import Section, TableCell
from tslrec.reports.paper.sections import SectionInputs, make_section

RESULTS = CHECKOUT / "results"


def claims_of(cells: Sequence[CellResult], results: Path) -> Section:
    return make_section("claims", SectionInputs(cells, results))


def lines(section: Section, word: str, claim: str) -> list[list[str]]:
    """The lines of the one table whose title has a word that speak of a claim."""
    (found,) = [table for table in section.tables if word in table.title]
    texts = [[value.text if isinstance(value, TableCell) else value for value in row] for row in found.rows]
    return [row for row in texts if claim in row[0]]


def comparison(gain: float, t_users: float, seeds: int = 2) -> Comparison:
    """Beside a rival whose mean is .1, with an interval of ±.001."""
    return Comparison(
        gain=gain,
        rival=0.1,
        low=gain - 0.001,
        high=gain + 0.001,
        bootstrap=1.0,
        t_users=t_users,
        t_seeds=None,
        t_least=0.01,
        users=100,
        seeds=seeds,
    )


@pytest.mark.parametrize(
    ("gain", "bootstrap", "t_users", "said"),
    [
        (0.01, 0.01, 0.05, HOLDS),
        (0.01, 0.01, 0.2, f"{FAILS}: by the bootstrap alone"),
        (0.01, 0.06, 0.2, f"{FAILS}: no difference shown"),
        (-0.01, 0.2, 0.2, f"{FAILS}: no difference shown"),
        (-0.01, 0.001, 0.001, f"{FAILS}: worse"),
    ],
)
def test_a_gain_holds_where_both_tests_say_so(gain: float, bootstrap: float, t_users: float, said: str) -> None:
    assert verdict(comparison(gain, t_users), bootstrap) == said


@pytest.mark.parametrize(("theirs", "seeds", "ruled_out"), [(0.12, 2, True), (0.1, 2, False), (0.12, 1, False)])
def test_the_papers_gain_is_ruled_out_above_the_interval_of_several_seeds(
    theirs: float, seeds: int, ruled_out: bool
) -> None:
    assert rules_out(comparison(0.01, 0.2, seeds), theirs) is ruled_out


@pytest.mark.parametrize("word", ["history masked", "history not masked"])
def test_tslrec_is_judged_beside_its_backbone_and_ci(cells: list[CellResult], word: str) -> None:
    section = claims_of(cells, RESULTS)
    for rival in ("its backbone", "CI"):
        (row,) = lines(section, word, rival)
        assert row[1:4] == ["Beauty, SASRec, TSLRec", HOLDS, "2"]


def test_p_values_are_corrected_over_the_table(cells: list[CellResult]) -> None:
    rows = lines(claims_of(cells, RESULTS), "history masked", "")
    # Two comparisons, each at the least that 10,000 draws can give, 2 / 10,001; twice that still reads as below .001.
    assert [row[6] for row in rows] == ["< .001", "< .001"]


@pytest.mark.parametrize(("validation", "said"), [(0.04, HOLDS), (0.06, UNSELECTED)])
def test_a_gain_over_a_base_that_is_not_chosen_is_called_so(tmp_path: Path, validation: float, said: str) -> None:
    made = [make_cell(tmp_path, method=method, seed=seed) for method in ("base", "tslrec") for seed in range(2)]
    made += [make_cell(tmp_path, method="base", seed=seed, variant="other", validation=validation) for seed in range(2)]
    section = claims_of(made, RESULTS)
    for word in ("masked", "not masked"):
        assert lines(section, f"history {word}", "its backbone")[0][2] == said


def test_the_same_metrics_hold_nothing(tmp_path: Path) -> None:
    base = make_cell(tmp_path, method="base", seed=0)
    same = make_cell(tmp_path, method="tslrec", seed=0)
    (tmp_path / "beauty-sasrec-tslrec-tuned-seed0.safetensors").write_bytes(
        (tmp_path / "beauty-sasrec-base-tuned-seed0.safetensors").read_bytes()
    )
    content = {**same.content, "arrays": base.content["arrays"]}
    same.path.write_text(json.dumps(content))
    section = claims_of([base, CellResult(same.path, content)], RESULTS)
    (row,) = lines(section, "history masked", "its backbone")
    assert row[2] == f"{FAILS}: no difference shown"
    assert row[4] == ".0000 (+0.0%)"
    assert row[6:8] == ["1.000", "1.000"]


def test_the_papers_own_gain_stands_beside_the_interval(cells: list[CellResult]) -> None:
    section = claims_of(cells, RESULTS)
    gains = []
    for rival in ("its backbone", "CI"):
        (row,) = lines(section, "history masked", rival)
        gains.append(row[9])
        low, high = (float(text.strip(" %")) for text in row[5].split("…"))
        gain, least = float(row[4].split("(")[1].strip("%)")), float(row[8].strip("%"))
        assert low < gain < high
        # Both tests pass here, so the gain is above what the t-test sees.
        assert gain > least > 0
    # NDCG@10 of SASRec on Beauty in the paper's Table 2: TSLRec .0458, Base .0424, CI .0440.
    assert gains == ["+8.0%", "+4.1%"]


def test_what_was_not_run_is_said_to_be_unmeasured(cells: list[CellResult]) -> None:
    section = claims_of(cells, RESULTS)
    assert "Yelp with SASRec" in section.missing_note
    assert "Beauty with SASRec" not in section.missing_note
    alone = [cell for cell in cells if cell.method != "ci"]
    (row,) = lines(claims_of(alone, RESULTS), "history masked", "CI")
    assert row[2] == UNMEASURED


def test_costs_are_of_the_benchmark_and_the_counts(cells: list[CellResult], tmp_path: Path) -> None:
    figures = json.loads((RESULTS / "bench" / "llm.json").read_text())["figures"]
    rows = lines(claims_of(cells, RESULTS), "other", "its SFT")
    assert [row[1].split(", ")[0] for row in rows] == ["Beauty", "Beauty", "MovieLens-1M", "Yelp"]
    ratio = figures["e4srec_whole_shared"]["value"] / figures["sft_whole_shared"]["value"]
    assert rows[0][3].endswith(f"{ratio:.1f} times less")
    (tmp_path / "paper.json").write_text((RESULTS / "paper.json").read_text())
    without = lines(claims_of(cells, tmp_path), "other", "its SFT")
    assert [row[2] for row in without] == [UNMEASURED]


@pytest.mark.parametrize(
    ("method", "claim", "holds"),
    [
        ("tslrec", "all groups", lambda gains: min(gains) > 0),
        ("ci", "most active", lambda gains: gains[-1] < 0),
    ],
)
def test_groups_are_judged_by_their_gains(
    cells: list[CellResult], method: str, claim: str, holds: Callable[[list[float]], bool]
) -> None:
    masked, unmasked = lines(claims_of(cells, RESULTS), "other", claim)
    assert masked[1].endswith(", masked")
    assert unmasked[1].endswith(", not masked")
    means = {
        name: [
            statistics.fmean(
                cell.content["by_activity"][i]["metrics"]["masked/NDCG@10"] for cell in cells if cell.method == name
            )
            for i in range(5)
        ]
        for name in (method, "base")
    }
    gains = [mine - base for mine, base in zip(means[method], means["base"], strict=True)]
    assert [float(text) for text in masked[3].split()] == pytest.approx(gains, abs=5.1e-5)
    assert masked[2] == (SIGNS if holds(gains) else FAILS)


def test_categories_hold_where_some_differ(cells: list[CellResult]) -> None:
    (row,) = lines(claims_of(cells, RESULTS), "other", "revises")
    assert row[2:] == [HOLDS, "C1 .500, C2 .300, C3 .200"]


def test_baselines_are_judged_once_all_four_have_cells(tmp_path: Path) -> None:
    """The base of the higher validation metric is the one that they stand beside."""
    made = [make_cell(tmp_path, method="base", seed=0, model=model) for model in ("sasrec", "lru")]
    made.append(make_cell(tmp_path, method="base", seed=0, model="fmlp", validation=0.06))
    made += [make_cell(tmp_path, method=method, seed=0) for method in ("pod", "p5", "e4srec")]
    claim = "not necessarily better"
    (first, *_) = lines(claims_of(made, RESULTS), "other", claim)
    assert first[1:3] == ["Beauty, masked", UNMEASURED]
    assert first[3] == "POD worse, P5 worse, LlamaRec not measured, E4SRec worse"
    made.append(make_cell(tmp_path, method="llamarec", seed=0, model="lru"))
    section = claims_of(made, RESULTS)
    found = {row[1]: row[2:] for row in lines(section, "other", claim)}
    assert found["Beauty, masked"] == [HOLDS, f"POD worse, P5 worse, LlamaRec {SAME}, E4SRec worse"]
    assert found["Yelp, masked"][0] == UNMEASURED
    rows = lines(section, "traditional ones (RQ1, Table 2), masked", "Beauty")
    assert [row[3] for row in rows] == ["FMLP-Rec"] * 4
    # NDCG@10 on Beauty in the paper's Table 2: LlamaRec .0492, FMLP-Rec's Base .0455.
    assert rows[2][-1] == ".0037"


def test_the_claim_fails_where_every_baseline_is_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for method in LLM_BASELINES:
        monkeypatch.setitem(HITS, method, 0.5)
    made = [make_cell(tmp_path, method=method, seed=0) for method in ("base", *LLM_BASELINES)]
    (first, *_) = lines(claims_of(made, RESULTS), "other", "not necessarily better")
    assert first[2] == FAILS
