"""Table 2: the ranking metrics of every method on every data set."""

from __future__ import annotations

from itertools import groupby

from tslrec.evaluation.protocols import METRICS, PROTOCOLS
from tslrec.pipeline.choices import choice_title
from tslrec.reports.paper.baselines import language_models, method_name, missing_rows, row_order
from tslrec.reports.paper.comparisons import check, comparison_table, results_table, rivals
from tslrec.reports.paper.document import Section, TableCell, TableView, digits
from tslrec.reports.paper.published import PAPER, PRINTED, PublishedResults
from tslrec.reports.paper.sections import SectionInputs, section
from tslrec.reports.paper.seed_rows import MAIN_PRESET


@section("table2", place=30, methods=("base", "ci", "tslrec", "e4srec", "llamarec", "p5", "pod"))
def table2(inputs: SectionInputs) -> Section:
    """A table of metrics per ranking protocol, preset and data set, and the tests of TSLRec against its rivals."""
    paper = inputs.published
    rows = inputs.own_rows
    tables, tests = [], []
    for protocol in PROTOCOLS:
        for preset in dict.fromkeys(row.preset for row in rows):
            mine = [row for row in rows if row.preset == preset]
            for data, block in groupby(mine, key=lambda row: row.data_name):
                title = f"{choice_title('data', data)}, history {PROTOCOLS[protocol]}, preset {preset}"
                own = sorted(block, key=row_order)
                missing = missing_rows(own, data, paper.table2) if preset == MAIN_PRESET else []
                tables.append(results_table(own, protocol, title, paper, missing))
            pairs = [(row, rival) for row in mine if row.method_name == "tslrec" for rival in rivals(row, mine)]
            if pairs:
                title = f"TSLRec against Base and CI, history {PROTOCOLS[protocol]}, preset {preset}"
                tests.append(comparison_table(pairs, protocol, METRICS, title))
    absent = [choice_title("data", data) for data in paper.table1 if data not in {row.data_name for row in rows}]
    models = language_models(rows)
    return Section(
        "table2",
        "Table 2: ranking",
        "Means over seeds ± their standard deviation; in bold the best of a data set, underlined the second best, "
        "within one ranking protocol. The paper does not say which protocol its own figures are of, so they stand "
        "beside both. A row of the paper that has no cell here is called missing. FPMC and BERT4Rec, which the paper "
        "cites, are further backbones.",
        [*tables, *([models] if models.rows else [])],
        missing_note=(f"no cell of {', '.join(absent)}" if absent else "") if rows else "no cell yet",
        more=[*tests, papers_table(paper)],
    )


def papers_table(paper: PublishedResults) -> TableView:
    """The paper's own Table 2; each row is checked for impossible combinations of metrics."""
    rows: list[list[TableCell | str]] = []
    for (data, model, method), values in paper.table2.items():
        names = [
            choice_title("data", data),
            choice_title("model", model or ""),
            method_name(method),
        ]
        rows.append([*names, *(TableCell(digits(value), sources=(PAPER,)) for value in values), check(values, PRINTED)])
    notes = [f"{paper.source} fits: as above, as far as four digits tell."]
    return TableView("The paper's own rows", ["data set", "backbone", "method", *METRICS, "fits"], rows, notes)
