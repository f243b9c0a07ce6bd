"""The ladder: rungs from the grid, gains over the tuned Base with Holm over the family, controls, costs, groups."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from support.checkout import CHECKOUT
from support.made_cells import make_cell
from support.made_sections import text
from tslrec.evaluation.significance import holm
from tslrec.evaluation.user_groups import degree_groups, degree_labels
from tslrec.reports.paper.cells import DEGREES, read_cell, read_cells
from tslrec.reports.paper.comparisons import compared, probability
from tslrec.reports.paper.document import TableView
from tslrec.reports.paper.grid import read_grid
from tslrec.reports.paper.ladder import gain_charts, verdict
from tslrec.reports.paper.ladder_groups import activity_points
from tslrec.reports.paper.ladder_rows import best_before, controls_of, seconds_of, steps
from tslrec.reports.paper.sections import SectionInputs, make_section, wanted_by
from tslrec.reports.paper.seed_rows import rows_of
from tslrec.system.errors import UserError

GRID = """
common: {preset: tuned, llm: smollm2_135m, trainer: cpu, data: [beauty], model: [sasrec], seed: [0, 1]}
groups:
  - {name: Base, method: [base]}
  - {name: CI, method: [ci]}
  - {name: Teacher, method: [distilled], rung: distillation}
  - {name: Itself, method: [distilled], variant: itself, rung: distillation, control_of: [Teacher]}
  - {name: Sum, method: [ensemble], rung: sums}
  - {name: EASE, method: [ease], rung: sums}
"""


@pytest.fixture
def results(tmp_path: Path) -> Path:
    (tmp_path / "grid.yaml").write_text(GRID, encoding="utf-8")
    return tmp_path


def made(results: Path, *, seeds: tuple[int, ...] = (0, 1)) -> SectionInputs:
    cells = results / "cells"
    for seed in seeds:
        for method in ("base", "ci", "ease", "ensemble", "distilled"):
            make_cell(cells, method=method, seed=seed, validation=0.06 if method == "ensemble" else 0.05)
        make_cell(cells, method="distilled", variant="itself", seed=seed)
    return SectionInputs(read_cells(cells), results)


def column(table: TableView, name: str) -> list[str]:
    return [text(row[list(table.columns).index(name)]) for row in table.rows]


def test_rungs_stand_in_their_order_and_controls_behind(results: Path) -> None:
    found = steps(made(results).rows, read_grid(results / "grid.yaml"))
    assert [(each.row.method_name, each.row.variant, each.control) for each in found] == [
        ("ensemble", None, False),
        ("ease", None, False),
        ("distilled", None, False),
        ("distilled", "itself", True),
    ]
    assert {each.base.names for each in found} == {("beauty-sasrec-base-tuned-seed0", "beauty-sasrec-base-tuned-seed1")}


def test_the_table_corrects_over_the_family_without_controls(results: Path) -> None:
    inputs = made(results)
    found = steps(inputs.rows, read_grid(results / "grid.yaml"))
    masked = make_section("ladder", inputs).tables[0]
    raw = [compared(each.row, each.base, "masked", "NDCG@10") for each in found]
    family = holm([each.bootstrap for each in raw[:3]])
    assert column(masked, "Holm") == [*(probability(value) for value in family), ""]
    assert column(masked, "over Base") == [f"{each.relative(each.gain):+.1%}" for each in raw]
    assert column(masked, "holds")[-1] == ""


def test_a_row_is_compared_with_its_controls_and_with_what_validation_chooses_of_the_rung_before(results: Path) -> None:
    found = steps(made(results).rows, read_grid(results / "grid.yaml"))
    teacher = found[2]
    assert [row.variant for row in controls_of(teacher, found)] == ["itself"]
    assert controls_of(found[0], found) == []
    comparisons = make_section("ladder", made(results)).more
    (over_control,) = (each for each in comparisons if each.title == "Over the controls, history masked")
    assert column(over_control, "") == ["Teacher − Itself"]
    before = best_before(teacher, found, "masked/NDCG@10")
    assert before is not None
    assert before.method_name == "ensemble"
    assert best_before(found[0], found, "masked/NDCG@10") is None


def test_costs_count_members_once_and_a_sum_is_served_by_all_of_them(results: Path) -> None:
    found = steps(made(results).rows, read_grid(results / "grid.yaml"))
    ensemble, ease, teacher = found[:3]
    assert [each.models_served for each in (ensemble, ease, teacher)] == [2, 1, 1]
    assert ensemble.seconds == pytest.approx(3 * 123.4)
    assert teacher.seconds == pytest.approx(5 * 123.4)
    stage = {"key": "a", "wall_seconds": 2.0}
    twice = {"stages": {"fusion": stage}, "members": [{"stages": {"backbone": stage}}]}
    assert seconds_of(twice) == 2.0


def test_times_of_another_machine_are_not_compared(results: Path) -> None:
    inputs = made(results)
    table = make_section("ladder", inputs).tables[0]
    assert column(table, "training")[1] == "1.0 ×"
    for row in inputs.rows:
        if row.method_name == "ease":
            for stage in row.cells[0].content["stages"].values():
                stage["machine"] = {**stage["machine"], "card": "a card"}
    table = make_section("ladder", inputs).tables[0]
    assert column(table, "training")[1] == "other machine"
    assert column(table, "training")[0] == "3.0 ×"


def test_rows_far_behind_are_in_the_table_and_not_in_the_chart(results: Path) -> None:
    inputs = made(results)
    found = steps(inputs.rows, read_grid(results / "grid.yaml"))
    measured = [(each, compared(each.row, each.base, "masked", "NDCG@10")) for each in found]
    step, lost = measured[1]
    lost = replace(lost, gain=-0.5 * lost.rival, low=-0.6 * lost.rival, high=-0.4 * lost.rival)
    near = replace(lost, gain=0.0, low=-0.1 * lost.rival, high=0.1 * lost.rival)
    behind, level = ([measured[0], (step, each), *measured[2:]] for each in (lost, near))
    (chart,) = gain_charts({"masked": behind, "not masked": level})
    assert step.title in chart.labels
    (chart,) = gain_charts({"masked": behind})
    assert step.title not in chart.labels
    assert len(chart.labels) == len(measured) - 1
    assert gain_charts({"masked": [(step, lost)]})[0].labels == [step.title]


def test_one_seed_is_a_hint(results: Path) -> None:
    section = make_section("ladder", made(results, seeds=(0,)))
    assert column(section.tables[0], "holds") == ["one seed", "one seed", "one seed", ""]
    assert section.missing_note == "4 cells, beauty-sasrec-distilled-tuned-seed1 first"


def test_rows_of_a_removed_method_are_marked_and_not_missing(results: Path) -> None:
    inputs = made(results, seeds=(0,))
    removed = GRID.replace("method: [ease],", "method: [ease], removed: 6ba8946,").replace(
        "variant: itself,", "variant: itself, removed: 6ba8946,"
    )
    (results / "grid.yaml").write_text(removed, encoding="utf-8")
    section = make_section("ladder", inputs)
    titles = ["Sum", "EASE (removed)", "SASRec: Teacher", "SASRec: Itself (removed) (control)"]
    assert [text(row[2]) for row in section.tables[0].rows] == titles
    assert set(section.charts[0].labels) <= set(titles)
    (over_control,) = (each for each in section.more if each.title == "Over the controls, history masked")
    assert column(over_control, "") == ["Teacher − Itself (removed)"]
    assert any(note.startswith("(removed): ") for note in section.tables[0].notes)
    assert section.missing_note == "2 cells, beauty-sasrec-distilled-tuned-seed1 first"


def test_the_projects_cells_of_removed_methods_are_still_rows() -> None:
    results = CHECKOUT / "results"
    grid = read_grid(results / "grid.yaml")
    names = ["beauty-sasrec-base-tuned-seed0", *(cell.name for cell in grid if cell.removed is not None)]
    rows = rows_of([read_cell(results / "cells" / f"{name}.json") for name in names])
    assert [(each.rung, each.title, each.row.method_title) for each in steps(rows, grid)] == [
        ("codes", "SASRec: Codes of three models' items (removed)", "Codes"),
        ("codes", "SASRec: Codes of other items (removed) (control)", "Codes, permuted"),
        ("text", "SASRec: Titles alone (removed)", "Text, alone"),
        ("text", "The sum of SASRec and titles alone (removed)", "Ensemble, sasrec_text"),
    ]


def test_a_gain_holds_where_both_tests_agree(results: Path) -> None:
    inputs = made(results)
    (base,) = (row for row in inputs.rows if row.method_name == "base")
    (best,) = (row for row in inputs.rows if row.method_name == "ensemble")
    gain, loss = compared(best, base, "masked", "NDCG@10"), compared(base, best, "masked", "NDCG@10")
    assert gain.t_seeds is not None
    assert verdict(gain, 0.001) == ("yes" if gain.t_seeds <= 0.05 else "no")
    assert verdict(gain, 0.06) == "no"
    assert verdict(loss, 0.001) == "no"


def test_groups_by_degree_are_those_of_the_targets(results: Path) -> None:
    section = make_section("ladder", made(results))
    (chart,) = (each for each in section.charts if "trained" in each.title and "not masked" not in each.title)
    assert chart.labels == ["0", "1–4", "5–20", "21 and more"]
    assert [series.name for series in chart.series] == ["Sum", "SASRec: Teacher"]
    rows = rows_of(read_cells(results / "cells"))
    (base,) = (row for row in rows if row.method_name == "base")
    (best,) = (row for row in rows if row.method_name == "ensemble")
    difference = best.gains("masked", "NDCG", 10, (0, 1)).mean(0) - base.gains("masked", "NDCG", 10, (0, 1)).mean(0)
    cold = degree_groups(np.arange(400) % 30) == 0
    point = chart.series[0].points[0]
    assert point is not None
    assert point.value == pytest.approx(difference[cold].mean())


def test_degrees_fall_into_the_labelled_groups() -> None:
    assert degree_groups(np.array([0, 1, 4, 5, 20, 21, 900])).tolist() == [0, 1, 1, 2, 2, 3, 3]
    assert len(degree_labels()) == 4


def test_the_section_needs_the_rungs_and_their_base(results: Path) -> None:
    grid = read_grid(results / "grid.yaml")
    assert {cell.method for cell in wanted_by(["ladder"], grid)} == {"base", "distilled", "ensemble", "ease"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "{name: X, method: [ci], variant: x, rung: attic}",
            "group 'X' has the rung 'attic'; the rungs are backbones, ",
        ),
        (
            "{name: X, method: [ci], variant: x, control_of: [Sum]}",
            "group 'X' is a control of 'Sum', which is no group on",
        ),
        (
            "{name: X, method: [ci], variant: x, rung: codes, control_of: [Sum]}",
            "group 'X' is a control of 'Sum', which is no group on its rung",
        ),
    ],
)
def test_wrong_rungs_are_refused(results: Path, line: str, message: str) -> None:
    (results / "grid.yaml").write_text(f"{GRID}  - {line}\n", encoding="utf-8")
    with pytest.raises(UserError, match=message):
        read_grid(results / "grid.yaml")


def test_gains_of_groups_are_over_the_seeds_that_both_rows_have(results: Path) -> None:
    made(results, seeds=(0,))
    for seed in (1, 2):
        make_cell(results / "cells", method="base", seed=seed, validation=0.05)
    found = steps(SectionInputs(read_cells(results / "cells"), results).rows, read_grid(results / "grid.yaml"))
    (step,) = (each for each in found if each.row.method_name == "distilled" and not each.control)
    assert [cell.seed for cell in step.base.cells] == [0, 1, 2]
    groups = [
        [group["metrics"]["masked/NDCG@10"] for group in row.cells[0].content["by_activity"]]
        for row in (step.row, step.base)
    ]
    points = [point for point in activity_points(step, "masked/NDCG@10") if point is not None]
    assert [point.value for point in points] == pytest.approx([own - base for own, base in zip(*groups, strict=True)])
    assert points[0].sources == (step.row.cells[0].name, step.base.cells[0].name)


def test_both_charts_of_groups_have_the_same_series_where_early_cells_lack_degrees(results: Path) -> None:
    cells = made(results).cells
    for cell in cells:
        if cell.method == "ensemble":
            del cell.arrays[DEGREES]  # type: ignore[attr-defined]
    charts = make_section("ladder", SectionInputs(cells, results)).charts
    by_degree, by_activity = (
        next(each for each in charts if what in each.title and "not masked" not in each.title)
        for what in ("was trained", "activity")
    )
    assert [series.name for series in by_degree.series] == [series.name for series in by_activity.series]
