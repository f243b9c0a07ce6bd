"""Prints an audit by topic: each line has a count, its share, and what it means for training and evaluation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table

from tslrec.data.audit import Audit, EvaluationFacts, Lengths, PopularityFacts, RowFacts, TrainingFacts, TruncationFacts
from tslrec.data.audit_times import TimeFacts
from tslrec.data.formats.base import Duplicates
from tslrec.data.formats.times import TimeSpan
from tslrec.data.interactions import MIN_EVALUATED_LENGTH
from tslrec.data.item_titles import TitleCounts
from tslrec.data.statistics import Fraction, format_row, fraction
from tslrec.reports.whole_tables import print_table

Line = tuple[Fraction | int | float, str]
"""A number and its meaning: a `Fraction` is a count with its share, an int a count alone, a float a share alone."""


def print_audit(title: str, facts: Audit, console: Console, *, duplicates: Duplicates = "refuse") -> None:
    """Prints all topics; lines wrap on a narrow console.

    Args:
        title: the data set's title.
        facts: the audit.
        console: where to print.
        duplicates: what happens to duplicates (see `RawInteractions`).
    """
    console.print(format_row(title, facts.table1), style="bold")
    console.print(Padding(history_line(facts.lengths), (0, 0, 0, 2)))
    if facts.rows is not None:
        for line in row_lines(facts.rows):
            console.print(Padding(line, (0, 0, 0, 2)))
    for heading, lines in topics(facts, duplicates):
        console.print(f"\n{heading}", style="bold")
        print_table(table_of(lines), console)
    if facts.times is None:
        console.print(
            "\nNo timestamps: file order is time order; ties, duplicates and future leakage cannot be told.",
        )


def topics(facts: Audit, duplicates: Duplicates) -> Iterator[tuple[str, Iterable[Line]]]:
    """The heading and the lines of each topic."""
    evaluated = facts.evaluation.unreachable_test.of
    yield f"Evaluation: leave-one-out, {evaluated:,} users", evaluation_lines(facts.evaluation)
    yield "Training", training_lines(facts.training, facts.truncation.max_len)
    yield f"Truncation: training.max_len={facts.truncation.max_len}", truncation_lines(facts.truncation)
    yield "Popularity", popularity_lines(facts.popularity)
    if facts.times is not None:
        heading = "Timestamps"
        if facts.rows is not None and facts.rows.reading.times is not None:
            heading = f"Timestamps: {span_words(facts.rows.reading.times)}"
        yield heading, time_lines(facts.times, facts.duplicates, duplicates)
    if facts.titles is not None:
        yield "Titles", title_lines(facts.titles)


def table_of(lines: Iterable[Line]) -> Table:
    """The lines of a topic; counts and shares have the same width in every topic."""
    table = Table.grid(padding=(0, 0, 0, 2))
    table.add_column(justify="right", min_width=13)
    table.add_column(justify="right", min_width=9)
    table.add_column(overflow="fold")
    for value, meaning in lines:
        match value:
            case Fraction():
                table.add_row(f"{value.count:,}", f"{value.share:.2%}", meaning)
            case int():
                table.add_row(f"{value:,}", "", meaning)
            case _:
                table.add_row("", f"{value:.2%}", meaning)
    return table


def history_line(lengths: Lengths) -> str:
    """One line about the lengths of the users' histories."""
    return (
        f"Histories: {lengths.shortest:,} to {lengths.longest:,} interactions, quartiles {lengths.first_quartile:g}, "
        f"{lengths.median:g}, {lengths.third_quartile:g}, mean {lengths.mean:.1f}"
    )


def row_lines(rows: RowFacts) -> Iterator[str]:
    """What became of the source's lines and rows; and what the reader noticed."""
    dropped = [f"{count:,} {reason}" for reason, count in rows.reading.dropped.items() if count]
    if rows.filtered.count:
        dropped.append(f"{rows.filtered.count:,} by the k-core filter")
    yield f"Rows: {rows.read:,} read; dropped: {', '.join(dropped) or 'none'}"
    yield from rows.reading.notes
    yield from rows.reading.warnings


def span_words(times: TimeSpan) -> str:
    """From when to when the timestamps are, and in which unit that reads them."""
    if not times.units:
        return f"{times.first} to {times.last}"
    unit, *others = times.units
    return f"{times.first} to {times.last}, read as {unit}" + (
        f", but some are {' and '.join(others)}" if others else ""
    )


def evaluation_lines(facts: EvaluationFacts) -> Sequence[Line]:
    """Users that cannot be evaluated, or cannot be hit."""
    return [
        (
            facts.too_short,
            f"users have fewer than {MIN_EVALUATED_LENGTH} interactions: they train and are not evaluated",
        ),
        (facts.repeats, "interactions repeat an item that the user had before"),
        (facts.unreachable_test, "users can't be hit when history is masked: their test target is in it"),
        (facts.unreachable_validation, "users likewise in validation, where weights are selected"),
        (facts.cold_test, "users have a cold test target: it occurs in no training part"),
        (facts.cold_validation, "users likewise in validation"),
    ]


def training_lines(facts: TrainingFacts, max_len: int) -> Sequence[Line]:
    """How many training instances there are."""
    return [
        (facts.interactions, "interactions are training parts: all but evaluated users' last two"),
        (facts.prefixes, "training instances: the item after every prefix of length 1 or more"),
        (facts.recent_positions, f"by E4SRec's rule: the last {max_len} positions, an empty history counts too"),
    ]


def truncation_lines(facts: TruncationFacts) -> Sequence[Line]:
    """What `training.max_len` cuts off."""
    return [
        (facts.long_test_inputs, "users have a longer test input: a model does not see its beginning"),
        (facts.cut_test_items, "items of test inputs are cut off"),
        (facts.cut_targets, "training instances lose the beginning of their history"),
        (facts.old_interactions, f"training interactions precede their user's last {facts.max_len}: the LLM sees none"),
    ]


def popularity_lines(facts: PopularityFacts) -> Sequence[Line]:
    """How concentrated the interactions are on popular items."""
    return [
        (facts.top_1_percent, "interactions are with the most popular 1 % of the items"),
        (facts.top_10_percent, "interactions are with the most popular 10 % of the items"),
    ]


def title_lines(counts: TitleCounts) -> Sequence[Line]:
    """How the file of titles fits the items."""
    return [
        (fraction(counts.titled, counts.items), "items have a title"),
        (fraction(counts.missing, counts.items), "items have none: they go by `item RAWID`"),
        (counts.repeated_ids, "ids stand in several rows: the first title counts"),
        (counts.shared_titles, "titles stand for several items"),
        (counts.unknown_ids, "ids with a row are of no item of the data"),
    ]


def time_lines(facts: TimeFacts, duplicates: Fraction | None, kept: Duplicates) -> Iterator[Line]:
    """Duplicates, ties, and leakage from the future."""
    if duplicates is not None:
        done = ": train.py refuses them" if kept == "refuse" else f": the {kept} one is kept"
        yield duplicates, f"rows have the user, item and time of an earlier row{done if duplicates.count else ''}"
    yield facts.tied, "interactions have a neighbour's time: file order decides"
    yield facts.tied_test, "users' test item is tied with validation: file order decides the split"
    yield facts.tied_validation, "users' validation item is tied with training"
    yield facts.users_before_training_ends, "users are tested before training ends: it holds others' later interactions"
    yield facts.users_target_trained_later, "users' test target is in others' training after the test"
    yield facts.mean_future_share, "of the training interactions are later than a test, averaged over users"
