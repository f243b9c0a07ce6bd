"""The paper's Tables 1 and 2, and the ablations, from finished cells."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from itertools import groupby
from pathlib import Path
from typing import Any

from tslrec.choices import choice_place, choice_title
from tslrec.errors import UserError
from tslrec.paper.cells import CellResult
from tslrec.paper.rows import ABLATIONS, Row, by_setting, common_seeds, rows_of
from tslrec.paper.significance import LEVEL, Comparison, arithmetic, compare, holm
from tslrec.paper.views import Section, Shown, TableView, digits
from tslrec.report import METRICS, PROTOCOLS

PRINTED = 5e-5
"""By how much a printed number of four digits may be off."""

PAPERS = {"pod": "POD", "p5": "P5", "llamarec": "LlamaRec"}
"""Methods of the paper that this framework does not run."""

PAPER = "the paper's own figures, results/paper.json"

TESTS = (
    "Gain: ours minus the rival's, the mean over the seeds that both have; in brackets the interval of 95 % of a "
    "paired bootstrap over seeds and users (10,000 draws). Bootstrap: its two-sided p-value; Holm: the same "
    "after Holm's correction over all rows of this table.",
    "t, users: the paper's two-sample t-test, its unit a user (averaged over seeds); it takes the users of both "
    "methods for different people, and so sees less than the bootstrap. t, seeds: its unit the mean of a seed. The "
    "paper does not state its unit.",
)


@dataclass(frozen=True)
class PaperFigures:
    """The paper's own numbers: `results/paper.json`."""

    source: str
    table1: Mapping[str, Mapping[str, float]]
    table2: Mapping[tuple[str, str | None, str], Sequence[float]]

    @classmethod
    def read(cls, path: Path) -> PaperFigures:
        """Reads them.

        Raises:
            UserError: if they cannot be read.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            table2 = {(each["data"], each["model"], each["method"]): each["values"] for each in content["table2"]}
            return cls(content["source"], {each["data"]: each for each in content["table1"]}, table2)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: not the paper's figures ({error!r}); take it from the repository") from error

    def row(self, row: Row) -> Sequence[float] | None:
        """The paper's HR@5, HR@10, NDCG@5 and NDCG@10 of a row of ours."""
        if not row.is_plain:
            return None
        method = row.says("method")
        return self.table2.get((row.says("data"), None if method == "e4srec" else row.says("model"), method))

    def gain(self, row: Row, rival: Row, metric: str) -> float | None:
        """How much better the paper's method is than the rival, relatively, on the data set and backbone of ours."""
        ours, theirs = (
            self.table2.get((each.says("data"), each.says("model"), each.says("method"))) for each in (row, rival)
        )
        if ours is None or theirs is None:
            return None
        place = METRICS.index(metric)
        return ours[place] / theirs[place] - 1


def table1(cells: Sequence[CellResult], paper: PaperFigures) -> Section:
    """Statistics of the data sets, ours above the paper's."""
    rows: list[list[Shown | str]] = []
    seen: dict[str, CellResult] = {}
    for cell in cells:
        seen.setdefault(str(cell.content["data"]), cell)
    for data in sorted(seen, key=lambda name: choice_place("data", name)):
        cell = seen[data]
        ours, theirs = cell.content["statistics"], paper.table1.get(data)
        rows.append(
            [choice_title("data", data), "here", *(Shown(text, cells=(cell.name,)) for text in statistics_of(ours))]
        )
        if theirs is not None:
            rows.append(["", "paper", *statistics_of(theirs)])
    columns = ("data set", "", "users", "items", "interactions", "density", "average length")
    wanting = ", ".join(choice_title("data", name) for name in paper.table1 if name not in seen)
    return Section(
        "table1",
        "Table 1: the data sets",
        "As they are read here, and as the paper states them.",
        [TableView("Statistics", columns, rows)] if rows else [],
        wanting=f"no cell yet of {wanting}" if wanting else "",
    )


def statistics_of(row: Mapping[str, float]) -> list[str]:
    counts = [f"{row[name]:,.0f}" for name in ("users", "items", "interactions")]
    return [*counts, f"{row['density']:.2%}", f"{row['average_length']:.1f}"]


def table2(cells: Sequence[CellResult], paper: PaperFigures) -> Section:
    """Every method on every data set: a table for each preset, ranking protocol and data set."""
    rows = [row for row in rows_of(cells) if row.says("method") not in ABLATIONS]
    tables, tests = [], []
    for protocol in PROTOCOLS:
        for preset in dict.fromkeys(row.says("preset") for row in rows):
            mine = [row for row in rows if row.says("preset") == preset]
            for data, block in groupby(mine, key=lambda row: row.says("data")):
                title = f"{choice_title('data', data)}, history {PROTOCOLS[protocol]}, preset {preset}"
                tables.append(results_table(list(block), protocol, title, paper))
            pairs = [(row, rival) for row in mine if row.says("method") == "tslrec" for rival in rivals(row, mine)]
            if pairs:
                title = f"TSLRec against Base and CI, history {PROTOCOLS[protocol]}, preset {preset}"
                tests.append(comparison_table(pairs, protocol, METRICS, title))
    return Section(
        "table2",
        "Table 2: ranking",
        "Means over seeds ± their standard deviation; in bold the best of a data set, underlined the second best, "
        "within one ranking protocol. The paper does not say which protocol its own figures are of, so they stand "
        "beside both.",
        tables,
        wanting="" if rows else "no cell yet",
        more=[*tests, papers_table(paper)],
    )


def papers_table(paper: PaperFigures) -> TableView:
    """The paper's own Table 2, each row's arithmetic checked."""
    rows: list[list[Shown | str]] = []
    for (data, model, method), values in paper.table2.items():
        names = [
            choice_title("data", data),
            choice_title("model", model or ""),
            PAPERS.get(method) or choice_title("method", method),
        ]
        rows.append([*names, *(Shown(digits(value), cells=(PAPER,)) for value in values), check(values, PRINTED)])
    notes = [f"{paper.source} fits: as above, as far as four digits tell."]
    return TableView("The paper's own rows", ["data set", "backbone", "method", *METRICS, "fits"], rows, notes)


def rivals(row: Row, rows: Sequence[Row]) -> list[Row]:
    """Base and CI on the same data set and backbone, CI of the same source; Base has no source model of its own."""
    same = {"base": ("data", "model", "preset"), "ci": ("data", "model", "preset", "source_model")}
    alike = [
        other
        for other in rows
        if all(row.says(each) == other.says(each) for each in same.get(other.says("method"), ()))
    ]
    return nearest(row, alike, same)


def nearest(row: Row, others: Sequence[Row], methods: Collection[str]) -> list[Row]:
    """Of each method that shares a seed, the row of the same variant, and where there is none the one without."""
    found: dict[str, Row] = {}
    for variant in dict.fromkeys((None, row.variant)):
        for other in others:
            if other.says("method") in methods and other.variant == variant and common_seeds(row, other):
                found[other.says("method")] = other
    return list(found.values())


def results_table(rows: Sequence[Row], protocol: str, title: str, paper: PaperFigures | None = None) -> TableView:
    """Metrics of some rows of one data set and one protocol, the best marked, each row's arithmetic checked."""
    names = [f"test/{protocol}/{metric}" for metric in METRICS]
    marks: dict[tuple[int, str], str] = {}
    for name in names:
        order = sorted(range(len(rows)), key=lambda i: -rows[i].mean(name))
        marks |= {(i, name): mark for i, mark in zip(order, ("best", "second"), strict=False)}
    shown: list[list[Shown | str]] = []
    for i, row in enumerate(rows):
        line: list[Shown | str] = [row.backbone, row.method, str(len(row.seeds))]
        line += [row.shown(name, marks.get((i, name), "")) for name in names]
        line.append(check([row.mean(name) for name in names], 0.0))
        if paper is not None:
            theirs = paper.row(row)
            printed = [Shown(digits(value), cells=(PAPER,)) for value in theirs or ()]
            line += ["", "", "", "", ""] if theirs is None else [*printed, check(theirs, PRINTED)]
        shown.append(line)
    columns = ["backbone", "method", "seeds", *METRICS, "fits"]
    if paper is not None:
        columns += [*(f"paper {metric}" for metric in METRICS), "fits"]
    notes = ["fits: whether HR and NDCG can be of the same ranks, with one target a user."]
    return TableView(title, columns, shown, notes)


def check(row: Sequence[float], rounding: float) -> Shown:
    """Whether a row of metrics can be."""
    complaint = arithmetic(row, rounding=rounding)
    return Shown("yes") if complaint is None else Shown("no", complaint, mark="doubt")


def comparison_table(pairs: Sequence[tuple[Row, Row]], protocol: str, metrics: Sequence[str], title: str) -> TableView:
    """Each row beside its rival; all of the table is one family of tests."""
    found = [(row, rival, metric, compared(row, rival, protocol, metric)) for row, rival in pairs for metric in metrics]
    adjusted = holm([each.bootstrap for *_, each in found])
    shown: list[list[Shown | str]] = []
    for (row, rival, metric, each), p_value in zip(found, adjusted, strict=True):
        names = (*row.names, *rival.names)
        detail = f"{each.seeds} seeds, {each.users:,} users"
        mark = "significant" if p_value <= LEVEL else ""
        interval = f"({digits(each.low)} … {digits(each.high)})"
        shown.append(
            [
                row.data,
                row.backbone,
                f"{row.method} − {rival.method}",
                metric,
                Shown(f"{digits(each.gain)} {interval}", detail, names, mark),
                Shown(f"{each.relative(each.gain):+.1%}", detail, names),
                Shown(probability(each.bootstrap), detail, names),
                Shown(probability(p_value), f"{detail}; a family of {len(found)} tests", names, mark),
                Shown(probability(each.t_users), detail, names),
                Shown(probability(each.t_seeds), detail, names) if each.t_seeds is not None else "",
            ]
        )
    columns = ["data set", "backbone", "", "metric", "gain", "relative", "bootstrap", "Holm", "t, users", "t, seeds"]
    return TableView(title, columns, shown, TESTS)


def compared(row: Row, rival: Row, protocol: str, metric: str) -> Comparison:
    """Both on the seeds that they have in common."""
    seeds = tuple(common_seeds(row, rival))
    return Comparison(**compared_cells(tuple(pick(row, seeds)), tuple(pick(rival, seeds)), protocol, metric))


def pick(row: Row, seeds: Sequence[int]) -> list[Path]:
    return [cell.path for cell in row.cells if cell.seed in seeds]


@cache
def compared_cells(mine: tuple[Path, ...], theirs: tuple[Path, ...], protocol: str, metric: str) -> dict[str, Any]:
    """The same by the cells' files: a bootstrap takes a second, and several tables show the same one."""
    from tslrec.paper.cells import read_cell

    name, k = metric.split("@")
    rows = [Row(tuple(read_cell(path) for path in paths)) for paths in (mine, theirs)]
    method_SU, rival_SU = (row.gains(protocol, name, int(k), row.seeds) for row in rows)
    return asdict(compare(method_SU, rival_SU))


def probability(value: float) -> str:
    """A p-value in three digits behind the point."""
    return "< .001" if value < 0.001 else digits(value, 3)


def ablations(cells: Sequence[CellResult]) -> Section:
    """What of TSLRec's knowledge does what: the methods with another source of it, beside Base, CI and TSLRec."""
    all_rows = rows_of(cells)
    tables, tests = [], []
    for protocol in PROTOCOLS:
        pairs = []
        for members in by_setting(all_rows):
            rows = [row for row in members if row.says("method") != "e4srec"]
            if not any(row.says("method") in ABLATIONS for row in rows):
                continue
            first = rows[-1]
            data = first.data
            title = f"{data}, {first.backbone}, history {PROTOCOLS[protocol]}, preset {first.says('preset')}"
            tables.append(results_table(rows, protocol, title))
            whole = [row for row in rows if row.says("method") == "tslrec"]
            pairs += [(one, other) for one in whole for other in nearest(one, rows, ABLATIONS)]
        if pairs:
            title = f"TSLRec against its ablations, history {PROTOCOLS[protocol]}"
            tests.append(comparison_table(pairs, protocol, ["NDCG@10"], title))
    return Section(
        "ablations",
        "What the language model gives",
        "The same fusion with other knowledge. Own: the embeddings of the first backbone itself. Projection: a random "
        "linear map of them, as wide as the language model. No SFT: the language model as it is, without fine-tuning. "
        "No text: the whole of TSLRec with a language model whose weights are drawn at random.",
        tables,
        wanting="" if tables else "no ablation yet",
        more=tests,
    )
