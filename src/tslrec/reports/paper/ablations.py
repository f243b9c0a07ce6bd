"""The ablations: what each part of TSLRec's knowledge contributes."""

from __future__ import annotations

from tslrec.evaluation.protocols import PROTOCOLS
from tslrec.reports.paper.comparisons import comparison_table, nearest, results_table
from tslrec.reports.paper.document import Section
from tslrec.reports.paper.sections import SectionInputs, section
from tslrec.reports.paper.seed_rows import ABLATIONS, by_setting


@section("ablations", place=70, methods=("base", "ci", "tslrec", *ABLATIONS), beside=ABLATIONS)
def ablations(inputs: SectionInputs) -> Section:
    """Methods that replace the source of TSLRec's knowledge, beside Base, CI and TSLRec."""
    tables, tests = [], []
    for protocol in PROTOCOLS:
        pairs = []
        for rows in by_setting(inputs.own_rows):
            if not any(row.method_name in ABLATIONS for row in rows):
                continue
            first = rows[-1]
            data = first.data_title
            title = f"{data}, {first.backbone_title}, history {PROTOCOLS[protocol]}, preset {first.preset}"
            tables.append(results_table(rows, protocol, title))
            whole = [row for row in rows if row.method_name == "tslrec"]
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
        missing_note="" if tables else "no ablation yet",
        more=tests,
    )
