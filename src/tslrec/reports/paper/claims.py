"""The paper's claims beside our measurements: each holds, does not hold here, or was not measured."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tslrec.evaluation.protocols import PROTOCOLS
from tslrec.evaluation.significance import LEVEL, Comparison, holm
from tslrec.pipeline.choices import choice_place, choice_title
from tslrec.reports.paper.baseline_claim import baseline_lines, baseline_table
from tslrec.reports.paper.comparisons import RIVALS, compared, probability, rivals
from tslrec.reports.paper.document import Section, TableCell, TableView, digits
from tslrec.reports.paper.figure3 import read
from tslrec.reports.paper.figure4 import CASES
from tslrec.reports.paper.figure5 import groups_gain
from tslrec.reports.paper.published import PAPER, PublishedResults
from tslrec.reports.paper.sections import SectionInputs, section
from tslrec.reports.paper.seed_rows import Row

HOLDS, FAILS, UNMEASURED = "holds", "does not hold here", "not measured"
UNSELECTED = "holds, over a Base that validation does not choose"
SIGNS = "the signs agree; not tested"
"""The verdict where the differences have the claimed signs but no test was made."""

METRIC = "NDCG@10"
"""The metric that claims are judged by."""

CHEAPER = {
    ("sft", "e4srec"): "its SFT takes less than E4SRec's (RQ2, Figure 3)",
    ("augmentation", "e4srec_inference"): "its inference by the language model takes less (RQ2, Figure 3)",
}
"""Claims about cost, by the pair of phases compared (ours, E4SRec's)."""

REVISED = "the language model revises the categories of some items (RQ3, Figure 4)"
EVERYWHERE = "TSLRec gains in all groups of users by activity (RQ3, Figure 5)"
BOTTLENECK = "CI falls behind its backbone among the most active users (RQ3, Figure 5)"

TESTS = (
    f"Gain: {METRIC} on the test, means over the seeds that both have. Bootstrap: the two-sided p-value of the "
    "bootstrap paired by seed and user after Holm's correction over the comparisons of this table; t: that of the "
    "paper's two-sample t-test, its unit a user. A gain holds where both are at most .05.",
    "95 %: the bootstrap's interval of the gain, not corrected, relative to the rival's mean; with a single seed it "
    "knows nothing of the chance of seeds. t sees: the gain from which on the t-test would be at most .05, with these "
    "users. Paper: the gain of its own figures on this data set and backbone; ruled out where it lies above the "
    "interval of two seeds or more.",
)


@section("claims", place=10, methods=("base", "ci", "tslrec", "e4srec", "llamarec", "p5", "pod"))
def claims(inputs: SectionInputs) -> Section:
    """All claims of the paper, each with a verdict.

    Raises:
        UserError: if the paper's numbers, the benchmark or the counts cannot be read.
    """
    rows, paper = inputs.rows, inputs.published
    tables = [ranking_table(rows, protocol, paper) for protocol in PROTOCOLS]
    tables[-1] = replace(tables[-1], notes=TESTS)
    tables += [baseline_table(rows, protocol, paper) for protocol in PROTOCOLS]
    others = [
        *baseline_lines(rows, paper, {True: HOLDS, False: FAILS}),
        *cost_lines(inputs.results),
        *category_lines(rows),
        *activity_lines(rows),
    ]
    tables.append(TableView("The other claims", ("claim", "where", "verdict", "measured"), others))
    missing = [
        f"{choice_title('data', data)} with {choice_title('model', model)}" for data, model in unmeasured(rows, paper)
    ]
    return Section(
        "claims",
        "The paper's claims",
        "What the paper says of TSLRec, and what came out here: with a small language model, backbones of width 64 "
        "with the settings that validation chose, and both ranking protocols of the literature.",
        tables,
        missing_note=f"TSLRec beside Base and CI on {', '.join(missing)}" if missing else "",
    )


def ranking_table(rows: Sequence[Row], protocol: str, paper: PublishedResults) -> TableView:
    """TSLRec against Base and CI wherever both were run; Holm's correction covers all tests of the table."""
    cases = [
        (row, rival, compared(row, rival, protocol, METRIC))
        for method in RIVALS
        for row in rows
        if row.method_name == "tslrec"
        for rival in rivals(row, rows)
        if rival.method_name == method
    ]
    adjusted = holm([each.bootstrap for *_, each in cases])
    lines: list[list[TableCell | str]] = []
    for (row, rival, each), p_value in zip(cases, adjusted, strict=True):
        names = (*row.names, *rival.names)
        detail = f"{each.seeds} seeds, {each.users:,} users"
        theirs, said = paper.gain(row, rival, METRIC), verdict(each, p_value)
        ruled_out = theirs is not None and rules_out(each, theirs)
        low, high, least = (each.relative(value) for value in (each.low, each.high, each.t_least))
        lines.append(
            [
                rival_title(rival.method_name),
                f"{row.title}, {row.method_title}",
                UNSELECTED if said == HOLDS and outdone(rival, rows, protocol) else said,
                str(each.seeds),
                TableCell(f"{digits(each.gain)} ({each.relative(each.gain):+.1%})", detail, names),
                TableCell(f"{low:+.1%} … {high:+.1%}", detail, names),
                TableCell(probability(p_value), detail, names),
                TableCell(probability(each.t_users), detail, names),
                TableCell(f"{least:+.1%}", detail, names),
                "" if theirs is None else TableCell(f"{theirs:+.1%}{', ruled out' * ruled_out}", sources=(PAPER,)),
            ]
        )
    seen = {rival.method_name for _, rival, _ in cases}
    columns = ("better than", "where", "verdict", "seeds", "gain", "95 %", "bootstrap", "t", "t sees", "paper")
    lines += [[rival_title(name), "", UNMEASURED, *[""] * (len(columns) - 3)] for name in RIVALS if name not in seen]
    return TableView(f"TSLRec is better than … (RQ1, Table 2), history {PROTOCOLS[protocol]}", columns, lines)


def rival_title(method: str) -> str:
    """The name of a rival in the claim that TSLRec is better."""
    return "its backbone" if method == "base" else choice_title("method", method)


def outdone(rival: Row, rows: Sequence[Row], protocol: str) -> bool:
    """Whether the rival is a Base and another Base row (a variant) of this setting has a higher validation metric.

    Validation would choose that other row, so that is the Base which TSLRec has to beat.
    """
    bases = [row for row in rows if (row.setting, row.method_name) == (rival.setting, rival.method_name)]
    best = max(bases, key=lambda row: row.mean(f"validation/{protocol}/{METRIC}"))
    return rival.method_name == "base" and best is not rival


def rules_out(found: Comparison, theirs: float) -> bool:
    """Whether the bootstrap interval of a gain lies below the paper's relative gain.

    With a single seed the interval leaves out the variation between seeds, so it rules nothing out.
    """
    return found.seeds > 1 and found.relative(found.high) < theirs


def verdict(found: Comparison, bootstrap: float) -> str:
    """Whether a gain holds: both tests must be significant.

    Args:
        found: the comparison.
        bootstrap: p-value of the bootstrap after Holm's correction.
    """
    passed = [name for name, p_value in (("bootstrap", bootstrap), ("t", found.t_users)) if p_value <= LEVEL]
    if not passed:
        return f"{FAILS}: no difference shown"
    if found.gain <= 0:
        return f"{FAILS}: worse"
    return HOLDS if len(passed) == 2 else f"{FAILS}: by the {passed[0]} alone"


def unmeasured(rows: Sequence[Row], paper: PublishedResults) -> list[tuple[str, str]]:
    """The paper's data sets and backbones for which no plain TSLRec row shares a seed with a rival."""
    seen = {
        (row.data_name, row.model_name)
        for row in rows
        if row.method_name == "tslrec" and row.is_plain and rivals(row, rows)
    }
    published = {(data, model) for data, model, _ in paper.table2 if model is not None}
    order = sorted(published, key=lambda case: (choice_place("data", case[0]), choice_place("model", case[1])))
    return [case for case in order if case not in seen]


def cost_lines(results: Path) -> Iterator[list[TableCell | str]]:
    """The cost of the language model against E4SRec's: seconds on Beauty, operations on each of the paper's data sets.

    Raises:
        UserError: if a file cannot be read.
    """
    paths = results / "bench" / "llm.json", results / "figure3.json"
    measured, counted = (read(path) if path.is_file() else None for path in paths)
    for (ours, theirs), text in CHEAPER.items():
        if measured is None and counted is None:
            yield [text, "", UNMEASURED, ""]
        if measured is not None:
            seconds = [measured["figures"][f"{name}_whole_shared"]["value"] for name in (ours, theirs)]
            shown = TableCell(
                f"{seconds[0] / 60:,.1f} beside {seconds[1] / 60:,.1f} min: {seconds[1] / seconds[0]:.1f} times less",
                "the same language model, SmolLM2-135M, both with the prompt shared",
                ("results/bench/llm.json",),
            )
            yield [text, "Beauty, time", HOLDS if seconds[0] < seconds[1] else FAILS, shown]
        if counted is not None:
            for data, plans in counted["plans"].items():
                flops = [plans["llama2_13b"][name]["shared"]["flops"] for name in (ours, theirs)]
                shown = TableCell(
                    f"{flops[1] / flops[0]:.1f} times less",
                    "counted for Llama-2-13B, both with the prompt shared; not run",
                    ("results/figure3.json",),
                )
                where = f"{choice_title('data', data)}, operations"
                yield [text, where, HOLDS if flops[0] < flops[1] else FAILS, shown]


def category_lines(rows: Sequence[Row]) -> Iterator[list[TableCell | str]]:
    """The share of items whose category inferred by the language model is, or is not, their k-means cluster."""
    found = [row for row in rows if row.method_name == "tslrec"]
    if not found:
        yield [REVISED, "", UNMEASURED, ""]
    for row in found:
        metrics = [cell.content["stages"]["augment"]["metrics"] for cell in row.cells]
        shares = {case: statistics.fmean(each[case] for each in metrics) for case in CASES}
        text = ", ".join(f"{case} {digits(share, 3)}" for case, share in shares.items())
        shown = TableCell(text, "whether that is what makes a gain is another question", row.names)
        yield [REVISED, f"{row.title}, {row.method_title}", HOLDS if shares["C1"] < 1 else FAILS, shown]


def activity_lines(rows: Sequence[Row]) -> Iterator[list[TableCell | str]]:
    """Gains over Base per group of users by activity, as means over the common seeds; not tested."""
    found = False
    for row in rows:
        if row.method_name != "tslrec":
            continue
        beside = {rival.method_name: rival for rival in rivals(row, rows)}
        if set(beside) != {"base", "ci"}:
            continue
        found = True
        for protocol, title in PROTOCOLS.items():
            for claim, each in ((EVERYWHERE, row), (BOTTLENECK, beside["ci"])):
                gains = groups_gain(each, beside["base"], f"{protocol}/{METRIC}")
                shown = TableCell(
                    " ".join(digits(value) for value in gains),
                    f"{METRIC} less Base's, the least active fifth of the users first; no test",
                    (*each.names, *beside["base"].names),
                )
                holds = min(gains) > 0 if claim == EVERYWHERE else gains[-1] < 0
                yield [claim, f"{row.title}, {each.method_title}, {title}", SIGNS if holds else FAILS, shown]
    if not found:
        yield [EVERYWHERE, "", UNMEASURED, ""]
        yield [BOTTLENECK, "", UNMEASURED, ""]
