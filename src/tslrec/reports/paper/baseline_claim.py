"""The paper's claim that methods whose language model recommends are not necessarily better than traditional ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tslrec.evaluation.protocols import METRICS, PROTOCOLS
from tslrec.evaluation.significance import LEVEL, Comparison, holm
from tslrec.pipeline.choices import choice_title
from tslrec.reports.paper.baselines import LLM_BASELINES, method_name
from tslrec.reports.paper.comparisons import compared, probability
from tslrec.reports.paper.document import TableCell, TableView, digits
from tslrec.reports.paper.published import PAPER, PublishedResults
from tslrec.reports.paper.seed_rows import MAIN_PRESET, Row, common_seeds

CLAIM = "methods with a language model are not necessarily better than traditional ones (RQ1, Table 2)"
"""Section 5.2, observation 2: their performance depends on the data set, with no necessary advantage."""

METRIC = "NDCG@10"
"""The metric that the claim is judged by."""

BETTER, WORSE, SAME, UNMEASURED = "better", "worse", "no difference shown", "not measured"
"""What a method is beside the traditional one; better or worse where both tests say so."""

NOTES = (
    "Beside the backbone that validation chooses: of the Base rows that share a seed with the method, the one with the "
    f"highest validation {METRIC} by the same protocol. Better or worse where the bootstrap after Holm's correction "
    "over this table and the t-test are both at most .05.",
    "The paper's column: its own figure of the method less that of its best Base row of the data set.",
)


@dataclass(frozen=True)
class Case:
    """A method with a language model on a data set.

    Attributes:
        data: the data set's name.
        method: the method's name.
        row: its row; None: it has no cell.
        beside: the Base row that it is compared with; None: there is none that shares a seed.
        found: the comparison, where there are both.
    """

    data: str
    method: str
    row: Row | None
    beside: Row | None
    found: Comparison | None


def cases_of(rows: Sequence[Row], protocol: str, paper: PublishedResults) -> list[Case]:
    """Every method with a language model on each of the paper's data sets, each row of it a case."""
    cases = []
    for data in paper.table1:
        mine = [row for row in rows if row.data_name == data and row.preset == MAIN_PRESET]
        for method in LLM_BASELINES:
            own = [row for row in mine if row.method_name == method]
            cases += [case_of(row, mine, protocol) for row in own] or [Case(data, method, None, None, None)]
    return cases


def case_of(row: Row, rows: Sequence[Row], protocol: str) -> Case:
    """A row beside the Base row of its data set that validation chooses."""
    beside = chosen_base(row, rows, protocol)
    found = None if beside is None else compared(row, beside, protocol, METRIC)
    return Case(row.data_name, row.method_name, row, beside, found)


def chosen_base(row: Row, rows: Sequence[Row], protocol: str) -> Row | None:
    """The Base row with the highest validation metric among those that share a seed with a row; None: there is none."""
    bases = [each for each in rows if each.method_name == "base" and common_seeds(row, each)]
    return max(bases, key=lambda each: each.mean(f"validation/{protocol}/{METRIC}"), default=None)


def said_of(found: Comparison, bootstrap: float) -> str:
    """What a comparison shows.

    Args:
        found: the comparison.
        bootstrap: p-value of the bootstrap after Holm's correction.
    """
    if max(bootstrap, found.t_users) > LEVEL:
        return SAME
    return BETTER if found.gain > 0 else WORSE


def verdicts(cases: Sequence[Case]) -> list[tuple[str, float | None]]:
    """What is said of each case, and the corrected p-value of its bootstrap."""
    adjusted = iter(holm([case.found.bootstrap for case in cases if case.found is not None]))
    said: list[tuple[str, float | None]] = []
    for case in cases:
        if case.found is None:
            said.append((UNMEASURED, None))
        else:
            p_value = next(adjusted)
            said.append((said_of(case.found, p_value), p_value))
    return said


def baseline_table(rows: Sequence[Row], protocol: str, paper: PublishedResults) -> TableView:
    """Each method with a language model beside the traditional method that validation chooses."""
    cases = cases_of(rows, protocol, paper)
    lines: list[list[TableCell | str]] = []
    for case, (said, p_value) in zip(cases, verdicts(cases), strict=True):
        title = method_name(case.method) if case.row is None else case.row.method_title
        line: list[TableCell | str] = [choice_title("data", case.data), title]
        if case.row is None or case.beside is None or case.found is None or p_value is None:
            line += [said, "", "", "", "", "", ""]
        else:
            names = (*case.row.names, *case.beside.names)
            found, detail = case.found, f"{case.found.users:,} users; {case.row.cells[0].content.get('llm')}"
            low, high = found.relative(found.low), found.relative(found.high)
            line += [
                said,
                case.beside.backbone_title,
                str(found.seeds),
                TableCell(f"{digits(found.gain)} ({found.relative(found.gain):+.1%})", detail, names),
                TableCell(f"{low:+.1%} … {high:+.1%}", detail, names),
                TableCell(probability(p_value), detail, names),
                TableCell(probability(found.t_users), detail, names),
            ]
        theirs = papers_difference(case.data, case.method, paper)
        line.append("" if theirs is None else TableCell(digits(theirs), sources=(PAPER,)))
        lines.append(line)
    columns = ("data set", "method", "verdict", "beside", "seeds", "gain", "95 %", "bootstrap", "t", "paper")
    title = f"Methods with a language model beside traditional ones (RQ1, Table 2), {PROTOCOLS[protocol]}"
    return TableView(title, columns, lines, NOTES)


def papers_difference(data: str, method: str, paper: PublishedResults) -> float | None:
    """The paper's own figure of a method less its highest of a Base row; None: it lacks one."""
    place = METRICS.index(METRIC)
    bases = [values[place] for (of, model, kind), values in paper.table2.items() if of == data and kind == "base"]
    theirs = paper.table2.get((data, None, method))
    return theirs[place] - max(bases) if theirs is not None and bases else None


def baseline_lines(
    rows: Sequence[Row], paper: PublishedResults, words: Mapping[bool, str]
) -> Iterator[list[TableCell | str]]:
    """The claim's verdict on each of the paper's data sets under each protocol, once all four methods have cells there.

    It holds where one of the four is not better than the traditional method.

    Args:
        rows: all rows.
        paper: the paper's own numbers.
        words: what is said of a claim that holds (True) and of one that does not.
    """
    for data in paper.table1:
        for protocol, protocol_title in PROTOCOLS.items():
            cases = cases_of(rows, protocol, paper)
            said = [(case, word) for case, (word, _) in zip(cases, verdicts(cases), strict=True) if case.data == data]
            where = f"{choice_title('data', data)}, {protocol_title}"
            text = ", ".join(f"{method_name(case.method)} {word}" for case, word in said)
            names = tuple(name for case, _ in said if case.row is not None for name in case.row.names)
            shown = TableCell(text, "beside the backbone that validation chooses", names)
            if any(word == UNMEASURED for _, word in said):
                yield [CLAIM, where, UNMEASURED, shown]
            else:
                yield [CLAIM, where, words[any(word != BETTER for _, word in said)], shown]
