"""Tables that put rows of metrics side by side, and the tests of their differences.

Shapes: S seeds, U tested users.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from tslrec.evaluation.protocols import METRICS
from tslrec.evaluation.significance import LEVEL, Comparison, arithmetic, holm
from tslrec.pipeline.choices import choice_title
from tslrec.reports.paper.baselines import line_order, method_name, row_order
from tslrec.reports.paper.document import TableCell, TableView, digits
from tslrec.reports.paper.kept_comparisons import compared_cells
from tslrec.reports.paper.published import PAPER, PRINTED, PublishedResults
from tslrec.reports.paper.seed_rows import Row, common_seeds

MISSING, NOTHING = "missing", "–"
"""What stands for the seeds of a row without a cell, and for its numbers."""

RIVALS = ("base", "ci")
"""The methods that TSLRec is compared with (the paper's RQ1 and Table 2)."""

TESTS = (
    "Gain: ours minus the rival's, the mean over the seeds that both have; in brackets the interval of 95 % of a "
    "paired bootstrap over seeds and users (10,000 draws). Bootstrap: its two-sided p-value; Holm: the same "
    "after Holm's correction over all rows of this table.",
    "t, users: the paper's two-sample t-test, its unit a user (averaged over seeds); it takes the users of both "
    "methods for different people, and so sees less than the bootstrap. t, seeds: its unit the mean of a seed. The "
    "paper does not state its unit.",
)


def rivals(row: Row, rows: Sequence[Row]) -> list[Row]:
    """The rows that TSLRec is compared with: same data set, backbone, preset, and source model where there is one.

    Base has no source model, so it is a rival whichever source model `row` has.
    """

    def is_comparable(other: Row) -> bool:
        same_source = other.method_name == "base" or other.source_name == row.source_name
        return other.setting == row.setting and same_source

    return nearest(row, [other for other in rows if is_comparable(other)], RIVALS)


def nearest(row: Row, others: Sequence[Row], methods: Collection[str]) -> list[Row]:
    """One row per method: that of the same variant if there is one, else the one without a variant.

    Args:
        row: the row to compare; the others must share a seed with it.
        others: the candidates.
        methods: names of the methods to look for.
    """
    found: dict[str, Row] = {}
    for variant in dict.fromkeys((None, row.variant)):
        for other in others:
            if other.method_name in methods and other.variant == variant and common_seeds(row, other):
                found[other.method_name] = other
    return list(found.values())


def results_table(
    rows: Sequence[Row],
    protocol: str,
    title: str,
    paper: PublishedResults | None = None,
    missing: Sequence[tuple[str | None, str]] = (),
) -> TableView:
    """The metrics of rows of one data set under one protocol.

    The best and second best of each column are marked, and each row is checked for impossible combinations.

    Args:
        rows: the rows, in order.
        protocol: the ranking protocol.
        title: the table's heading.
        paper: adds the paper's own numbers as further columns; None: no such columns.
        missing: backbones (None: the method has none, or any) and methods of which there is no row. They are shown as
            missing, where `paper` is given.
    """
    names = [f"test/{protocol}/{metric}" for metric in METRICS]
    marks: dict[tuple[int, str], str] = {}
    for name in names:
        order = sorted(range(len(rows)), key=lambda i: -rows[i].mean(name))
        marks |= {(i, name): mark for i, mark in zip(order, ("best", "second"), strict=False)}
    shown: list[tuple[tuple[object, ...], list[TableCell | str]]] = []
    for i, row in enumerate(rows):
        line: list[TableCell | str] = [row.backbone_title, row.method_title, str(len(row.seeds))]
        line += [row.mean_cell(name, marks.get((i, name), "")) for name in names]
        line.append(check([row.mean(name) for name in names], 0.0))
        if paper is not None:
            line += papers_columns(paper.row(row))
        shown.append((row_order(row), line))
    for model, method in missing if paper is not None and rows else ():
        names_of = [NOTHING if model is None else choice_title("model", model), method_name(method), MISSING]
        theirs = paper.table2.get((rows[0].data_name, model, method)) if paper is not None else None
        line = [*names_of, *[NOTHING] * len(METRICS), "", *papers_columns(theirs)]
        shown.append((line_order(model or "", model or "", method, None), line))
    if missing:
        shown.sort(key=lambda pair: pair[0])
    columns = ["backbone", "method", "seeds", *METRICS, "fits"]
    if paper is not None:
        columns += [*(f"paper {metric}" for metric in METRICS), "fits"]
    notes = ["fits: whether HR and NDCG can be of the same ranks, with one target a user."]
    return TableView(title, columns, [line for _, line in shown], notes)


def papers_columns(theirs: Sequence[float] | None) -> list[TableCell | str]:
    """The paper's own metrics and whether they fit; empty fields where it has none."""
    if theirs is None:
        return [""] * (len(METRICS) + 1)
    return [*(TableCell(digits(value), sources=(PAPER,)) for value in theirs), check(theirs, PRINTED)]


def check(row: Sequence[float], rounding: float) -> TableCell:
    """`yes` if HR and NDCG can belong to the same ranks, `no` with the reason if not.

    Args:
        row: HR@5, HR@10, NDCG@5, NDCG@10.
        rounding: by how much each printed number may be off.
    """
    complaint = arithmetic(row, rounding=rounding)
    return TableCell("yes") if complaint is None else TableCell("no", complaint, mark="inconsistent")


def comparison_table(
    pairs: Sequence[tuple[Row, Row]],
    protocol: str,
    metrics: Sequence[str],
    title: str,
    words: Mapping[tuple[str, ...], str] | None = None,
) -> TableView:
    """The gain of each row over its rival, with tests; Holm's correction covers all tests of the table.

    Args:
        pairs: rows with their rivals.
        protocol: the ranking protocol.
        metrics: names of the metrics, such as `NDCG@10`.
        title: the table's heading.
        words: what rows are called, by their `names`; others by their methods.
    """
    called = words or {}
    found = [(row, rival, metric, compared(row, rival, protocol, metric)) for row, rival in pairs for metric in metrics]
    adjusted = holm([each.bootstrap for *_, each in found])
    shown: list[list[TableCell | str]] = []
    for (row, rival, metric, each), p_value in zip(found, adjusted, strict=True):
        names = (*row.names, *rival.names)
        detail = f"{each.seeds} seeds, {each.users:,} users"
        mark = "significant" if p_value <= LEVEL else ""
        interval = f"({digits(each.low)} … {digits(each.high)})"
        shown.append(
            [
                row.data_title,
                row.backbone_title,
                " − ".join(called.get(side.names, side.method_title) for side in (row, rival)),
                metric,
                TableCell(f"{digits(each.gain)} {interval}", detail, names, mark),
                TableCell(f"{each.relative(each.gain):+.1%}", detail, names),
                TableCell(probability(each.bootstrap), detail, names),
                TableCell(probability(p_value), f"{detail}; a family of {len(found)} tests", names, mark),
                TableCell(probability(each.t_users), detail, names),
                TableCell(probability(each.t_seeds), detail, names) if each.t_seeds is not None else "",
            ]
        )
    columns = ["data set", "backbone", "", "metric", "gain", "relative", "bootstrap", "Holm", "t, users", "t, seeds"]
    return TableView(title, columns, shown, TESTS)


def compared(row: Row, rival: Row, protocol: str, metric: str) -> Comparison:
    """Compares two rows on their common seeds."""
    seeds = tuple(common_seeds(row, rival))
    return compared_cells(tuple(pick(row, seeds)), tuple(pick(rival, seeds)), protocol, metric)


def pick(row: Row, seeds: Sequence[int]) -> list[Path]:
    """The files of a row's cells with some seeds."""
    return [cell.path for cell in row.cells if cell.seed in seeds]


def probability(value: float) -> str:
    """A p-value with three decimals."""
    return "< .001" if value < 0.001 else digits(value, 3)
