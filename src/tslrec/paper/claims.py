"""The paper's claims, each beside what was measured of it: it holds, it does not hold here, or it was not measured."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from tslrec.choices import choice_place, choice_title
from tslrec.paper.cells import CellResult
from tslrec.paper.figure3 import read
from tslrec.paper.figures import CASES, by_group, title_of
from tslrec.paper.rows import Row, common_seeds, rows_of
from tslrec.paper.significance import LEVEL, Comparison, holm
from tslrec.paper.tables import PAPER, PaperFigures, compared, probability, rivals
from tslrec.paper.views import Section, Shown, TableView, digits
from tslrec.report import PROTOCOLS

HOLDS, FAILS, UNMEASURED = "holds", "does not hold here", "not measured"
UNSELECTED = "holds, over a Base that validation does not choose"
SIGNS = "the signs agree; not tested"
"""Of differences that no test tells from chance."""

METRIC = "NDCG@10"
BETTER = {"base": "its backbone", "ci": "CI"}
"""What TSLRec is better than, by the paper (RQ1, Table 2)."""
CHEAPER = {
    ("sft", "e4srec"): "its SFT takes less than E4SRec's (RQ2, Figure 3)",
    ("augmentation", "e4srec_inference"): "its inference by the language model takes less (RQ2, Figure 3)",
}
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


def claims(cells: Sequence[CellResult], results: Path, paper: PaperFigures) -> Section:
    """All of them.

    Args:
        cells: the finished ones.
        results: the folder with the benchmark of the language model and the counts for Figure 3.
        paper: the paper's own figures.

    Raises:
        UserError: if a file there cannot be read.
    """
    rows = rows_of(cells)
    tables = [ranking_table(rows, protocol, paper) for protocol in PROTOCOLS]
    tables[-1] = replace(tables[-1], notes=TESTS)
    others = [*cost_lines(results), *category_lines(rows), *activity_lines(rows)]
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
        wanting=f"TSLRec beside Base and CI on {', '.join(missing)}" if missing else "",
    )


def ranking_table(rows: Sequence[Row], protocol: str, paper: PaperFigures) -> TableView:
    """TSLRec beside Base and CI wherever both were run; all of the table is one family of tests."""
    cases = [
        (row, rival, compared(row, rival, protocol, METRIC))
        for method in BETTER
        for row in rows
        if row.says("method") == "tslrec"
        for rival in rivals(row, rows)
        if rival.says("method") == method
    ]
    adjusted = holm([each.bootstrap for *_, each in cases])
    lines: list[list[Shown | str]] = []
    for (row, rival, each), p_value in zip(cases, adjusted, strict=True):
        names = (*row.names, *rival.names)
        detail = f"{each.seeds} seeds, {each.users:,} users"
        theirs, said = paper.gain(row, rival, METRIC), verdict(each, p_value)
        ruled_out = theirs is not None and rules_out(each, theirs)
        low, high, least = (each.relative(value) for value in (each.low, each.high, each.t_least))
        lines.append(
            [
                BETTER[rival.says("method")],
                f"{title_of(row)}, {row.method}",
                UNSELECTED if said == HOLDS and outdone(rival, rows, protocol) else said,
                str(each.seeds),
                Shown(f"{digits(each.gain)} ({each.relative(each.gain):+.1%})", detail, names),
                Shown(f"{low:+.1%} … {high:+.1%}", detail, names),
                Shown(probability(p_value), detail, names),
                Shown(probability(each.t_users), detail, names),
                Shown(f"{least:+.1%}", detail, names),
                "" if theirs is None else Shown(f"{theirs:+.1%}{', ruled out' * ruled_out}", cells=(PAPER,)),
            ]
        )
    seen = {rival.says("method") for _, rival, _ in cases}
    columns = ("better than", "where", "verdict", "seeds", "gain", "95 %", "bootstrap", "t", "t sees", "paper")
    lines += [[text, "", UNMEASURED, *[""] * (len(columns) - 3)] for name, text in BETTER.items() if name not in seen]
    return TableView(f"TSLRec is better than … (RQ1, Table 2), history {PROTOCOLS[protocol]}", columns, lines)


def outdone(rival: Row, rows: Sequence[Row], protocol: str) -> bool:
    """Whether, of one backbone with other settings, another Base has a higher validation: that one is to be beaten."""
    same = ("data", "model", "preset", "method")
    bases = [row for row in rows if all(row.says(name) == rival.says(name) for name in same)]
    best = max(bases, key=lambda row: row.mean(f"validation/{protocol}/{METRIC}"))
    return rival.says("method") == "base" and best is not rival


def rules_out(found: Comparison, theirs: float) -> bool:
    """Whether the interval of a gain, which must know of the chance of seeds, lies below the paper's relative gain."""
    return found.seeds > 1 and found.relative(found.high) < theirs


def verdict(found: Comparison, bootstrap: float) -> str:
    """Of a comparison, by both tests.

    Args:
        found: the comparison.
        bootstrap: its p-value, corrected.
    """
    passed = [name for name, p_value in (("bootstrap", bootstrap), ("t", found.t_users)) if p_value <= LEVEL]
    if not passed:
        return f"{FAILS}: no difference shown"
    if found.gain <= 0:
        return f"{FAILS}: worse"
    return HOLDS if len(passed) == 2 else f"{FAILS}: by the {passed[0]} alone"


def unmeasured(rows: Sequence[Row], paper: PaperFigures) -> list[tuple[str, str]]:
    """The paper's data sets and backbones of which TSLRec and a rival have no seed in common."""
    seen = {
        (row.says("data"), row.says("model"))
        for row in rows
        if row.says("method") == "tslrec" and row.is_plain and rivals(row, rows)
    }
    published = {(data, model) for data, model, _ in paper.table2 if model is not None}
    order = sorted(published, key=lambda case: (choice_place("data", case[0]), choice_place("model", case[1])))
    return [case for case in order if case not in seen]


def cost_lines(results: Path) -> Iterator[list[Shown | str]]:
    """The language model's cost beside E4SRec's: seconds on Beauty, operations on every data set of the paper."""
    paths = results / "bench" / "llm.json", results / "figure3.json"
    measured, counted = (read(path) if path.is_file() else None for path in paths)
    for (ours, theirs), text in CHEAPER.items():
        if measured is None and counted is None:
            yield [text, "", UNMEASURED, ""]
        if measured is not None:
            seconds = [measured["figures"][f"{name}_whole_shared"]["value"] for name in (ours, theirs)]
            shown = Shown(
                f"{seconds[0] / 60:,.1f} beside {seconds[1] / 60:,.1f} min: {seconds[1] / seconds[0]:.1f} times less",
                "the same language model, SmolLM2-135M, both with the prompt shared",
                ("results/bench/llm.json",),
            )
            yield [text, "Beauty, time", HOLDS if seconds[0] < seconds[1] else FAILS, shown]
        if counted is not None:
            for data, plans in counted["plans"].items():
                flops = [plans["llama2_13b"][name]["shared"]["flops"] for name in (ours, theirs)]
                shown = Shown(
                    f"{flops[1] / flops[0]:.1f} times less",
                    "counted for Llama-2-13B, both with the prompt shared; not run",
                    ("results/figure3.json",),
                )
                where = f"{choice_title('data', data)}, operations"
                yield [text, where, HOLDS if flops[0] < flops[1] else FAILS, shown]


def category_lines(rows: Sequence[Row]) -> Iterator[list[Shown | str]]:
    """How many items the language model puts elsewhere than k-means."""
    found = [row for row in rows if row.says("method") == "tslrec"]
    if not found:
        yield [REVISED, "", UNMEASURED, ""]
    for row in found:
        metrics = [cell.content["stages"]["augment"]["metrics"] for cell in row.cells]
        shares = {case: statistics.fmean(each[case] for each in metrics) for case in CASES}
        text = ", ".join(f"{case} {digits(share, 3)}" for case, share in shares.items())
        shown = Shown(text, "whether that is what makes a gain is another question", row.names)
        yield [REVISED, f"{title_of(row)}, {row.method}", HOLDS if shares["C1"] < 1 else FAILS, shown]


def activity_lines(rows: Sequence[Row]) -> Iterator[list[Shown | str]]:
    """Gains over Base by the activity of users, without a test: the groups' means over the common seeds."""
    found = False
    for row in rows:
        if row.says("method") != "tslrec":
            continue
        beside = {rival.says("method"): rival for rival in rivals(row, rows)}
        if set(beside) != {"base", "ci"}:
            continue
        found = True
        for protocol, title in PROTOCOLS.items():
            for claim, each in ((EVERYWHERE, row), (BOTTLENECK, beside["ci"])):
                gains = groups_gain(each, beside["base"], protocol)
                shown = Shown(
                    " ".join(digits(value) for value in gains),
                    f"{METRIC} less Base's, the least active fifth of the users first; no test",
                    (*each.names, *beside["base"].names),
                )
                holds = min(gains) > 0 if claim == EVERYWHERE else gains[-1] < 0
                yield [claim, f"{title_of(row)}, {each.method}, {title}", SIGNS if holds else FAILS, shown]
    if not found:
        yield [EVERYWHERE, "", UNMEASURED, ""]
        yield [BOTTLENECK, "", UNMEASURED, ""]


def groups_gain(row: Row, rival: Row, protocol: str) -> list[float]:
    """Mean differences of the groups of users, the least active first, over the seeds that both have."""
    seeds = common_seeds(row, rival)
    ours, theirs = (
        by_group(Row(tuple(cell for cell in each.cells if cell.seed in seeds)), "by_activity", f"{protocol}/{METRIC}")
        for each in (row, rival)
    )
    return [statistics.fmean(mine) - statistics.fmean(his) for mine, his in zip(ours, theirs, strict=True)]
