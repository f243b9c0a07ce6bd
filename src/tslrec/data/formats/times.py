"""Timestamps as sortable numbers: integers stay integers, decimals keep their order, dates become time since 1970."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import NoReturn

import numpy as np
import polars as pl

from tslrec.data.formats.wording import brief
from tslrec.system.errors import UserError

ISO = (
    r"^(?<date>\d{4}-\d{2}-\d{2})"
    r"(?:[T ](?<clock>\d{2}:\d{2}(?::\d{2})?)(?:[.,](?<fraction>\d{1,9})\d*)?"
    r" ?(?<zone>Z|z|UTC|[+-](?:[01]\d|2[0-3])(?::?[0-5]\d)?)?)?$"
)
"""A date, or a date and time with an optional fraction of a second and an optional zone."""
UNITS = {
    "seconds": (1e8, 1e10),
    "milliseconds": (1e11, 1e13),
    "microseconds": (1e14, 1e16),
    "nanoseconds": (1e17, 9.3e18),
}
"""The values that stand for times from 1973 to 2286, in each unit; they do not overlap."""
PER_SECOND = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}
EXACT_DIGITS = 15
"""Decimal digits that float64 always tells apart."""
MOST_DIGITS = 38
"""Digits of Polars' decimals."""

Place = Callable[[int], str]
"""Where a row is, for error messages, from its index."""


@dataclass(frozen=True)
class TimeSpan:
    """What the timestamps of a file say, before any filter.

    Attributes:
        first: the earliest, as a date if it can be one, else as it is.
        last: the latest, likewise.
        units: rows by the unit in which their value is a time from 1973 to 2286; several units are a fault of the data.
    """

    first: str
    last: str
    units: Mapping[str, int] = field(default_factory=dict)


def converted(time: pl.Series, place: Place, column: str) -> tuple[pl.Series, TimeSpan]:
    """The timestamps as Int64 or Float64, and what they say.

    Dates become microseconds since 1970 in UTC, or nanoseconds where a value has them. Decimals that float64 cannot
    tell apart are replaced by their rank, and so are dates with nanoseconds that Int64 cannot hold.

    Args:
        time: the column as the file has it.
        place: names a row.
        column: the column's name, for error messages.

    Raises:
        UserError: for the first value that is neither a finite number nor a date.
    """
    if time.dtype == pl.Date or isinstance(time.dtype, pl.Datetime):
        stamps = since_1970(time)
        refuse_missing(stamps, time, place, column)
        return stamps.rename("timestamp"), span_of_dates(stamps, "nanoseconds" if is_nano(time) else "microseconds")
    if isinstance(time.dtype, pl.Categorical | pl.Enum):
        time = time.cast(pl.String)
    if time.dtype == pl.String:
        time = time.str.strip_chars()
        if is_iso(time):
            stamps, span = from_iso(time, place, column)
            return stamps.rename("timestamp"), span
        stamps = from_text(time, place, column)
        return stamps.rename("timestamp"), span_of_numbers(
            stamps if stamps.dtype != pl.UInt32 else time.cast(pl.Float64)
        )
    if isinstance(time.dtype, pl.Decimal):
        stamps = from_text(time.cast(pl.String), place, column)
    elif time.dtype.is_integer():
        stamps = time.cast(pl.Int64, strict=False)
        refuse_missing(stamps, time, place, column)
    elif time.dtype.is_float():
        stamps = time.cast(pl.Float64)
        refuse_missing(stamps.set(~stamps.is_finite().fill_null(False), None), time, place, column)
    else:
        raise UserError(f"{place(0)}: '{brief(column)}' holds {brief(time.dtype)}, not numbers or dates; convert it")
    return stamps.rename("timestamp"), span_of_numbers(stamps)


def is_nano(time: pl.Series) -> bool:
    """Whether dates have a part below a microsecond."""
    if not (isinstance(time.dtype, pl.Datetime) and time.dtype.time_unit == "ns"):
        return False
    return bool((time.to_physical() % 1000 != 0).any())


def since_1970(time: pl.Series) -> pl.Series:
    """Dates as microseconds since 1970, or nanoseconds where they have any."""
    return time.to_physical() if is_nano(time) else time.cast(pl.Datetime("us")).cast(pl.Int64)


def is_iso(text: pl.Series) -> bool:
    """Whether the first value that is not empty begins like a date; the others must then be dates too."""
    some = text.filter(text != "").head(1)
    return len(some) > 0 and bool(some.str.contains(r"^\d{4}-\d{2}-\d{2}").item())


def from_iso(text: pl.Series, place: Place, column: str) -> tuple[pl.Series, TimeSpan]:
    """Dates and times in ISO 8601 as time since 1970 in UTC; without a zone they are taken for UTC.

    Returns:
        Int64; or their rank (UInt32) where some have nanoseconds and others are too far from 1970 to be counted in
        them. And the span.

    Raises:
        UserError: for the first value that is no date.
    """
    parts = text.str.extract_groups(ISO).struct.unnest()
    clock = parts["clock"].fill_null("00:00:00")
    clock = pl.select(pl.when(clock.str.len_chars() == 5).then(clock + ":00").otherwise(clock)).to_series()
    moment = (parts["date"] + " " + clock).str.to_datetime("%Y-%m-%d %H:%M:%S", strict=False, time_unit="us")
    refuse_missing(moment, text, place, column, "2020-12-04 or 2020-12-04T12:25:11Z")
    zone = parts["zone"].fill_null("Z").str.replace_all(r"[:A-Za-z]", "")
    sign = zone.str.starts_with("-").cast(pl.Int64) * -2 + 1
    hours = zone.str.slice(1, 2).cast(pl.Int64, strict=False).fill_null(0)
    minutes = zone.str.slice(3, 2).cast(pl.Int64, strict=False).fill_null(0)
    seconds = moment.cast(pl.Int64) // 10**6 - sign * (hours * 3600 + minutes * 60)
    nanos = parts["fraction"].fill_null("").str.pad_end(9, "0").cast(pl.Int64)
    micros = seconds * 10**6 + nanos // 1000
    if not bool((nanos % 1000 != 0).any()):
        return micros, span_of_dates(micros, "microseconds")
    if bool((seconds.abs() < 9 * 10**9).all()):
        exact = seconds * 10**9 + nanos
        return exact, span_of_dates(exact, "nanoseconds")
    moments = pl.DataFrame({"micros": micros, "below": nanos % 1000})
    return moments.select(pl.struct("micros", "below").rank("dense")).to_series(), span_of_dates(micros, "microseconds")


def from_text(text: pl.Series, place: Place, column: str) -> pl.Series:
    """Numbers as Int64 if all are whole, as Float64 if it tells them apart, else as their rank (UInt32).

    Raises:
        UserError: for the first value that is not a finite number.
    """
    whole = text.cast(pl.Int64, strict=False)
    if whole.null_count() == 0:
        return whole
    numbers = text.cast(pl.Float64, strict=False)
    refuse_missing(numbers.set(~numbers.is_finite().fill_null(False), None), text, place, column)
    digits = text.str.replace_all(r"[^0-9]|[eE].*$", "").str.strip_chars_start("0").str.len_chars()
    if not (digits > EXACT_DIGITS).any():
        return numbers
    exact = decimals(text)
    if exact is None or exact.n_unique() == numbers.n_unique():
        return numbers
    return exact.rank("dense")


def decimals(text: pl.Series) -> pl.Series | None:
    """Numbers as exact decimals; None if they have too many digits."""
    plain = text
    if text.str.contains("[eE]").any():
        plain = text.map_elements(lambda each: format(Decimal(each), "f"), return_dtype=pl.String)
    scale = max(plain.str.extract(r"\.(\d*)").str.len_chars().fill_null(0).to_list())
    if scale >= MOST_DIGITS:
        return None
    exact = plain.cast(pl.Decimal(MOST_DIGITS, scale), strict=False)
    return exact if exact.null_count() == 0 else None


def refuse_missing(
    found: pl.Series,
    given: pl.Series,
    place: Place,
    column: str,
    wanted: str = "a number or a date like 2020-12-04T12:25:11Z",
) -> None:
    """Refuses the first row whose value could not be converted."""
    if found.null_count():
        row = int(found.is_null().arg_max() or 0)
        refuse_time(given[row], place(row), column, wanted)


def refuse_time(value: object, where: str, column: str, wanted: str) -> NoReturn:
    """Raises the error for one timestamp."""
    shown = "empty" if value is None or value == "" else f"'{brief(value)}'"
    raise UserError(f"{where}: '{brief(column)}' is {shown}, not {wanted}; correct it")


def span_of_dates(stamps: pl.Series, unit: str) -> TimeSpan:
    """The span of timestamps that the file has as dates."""
    return TimeSpan(date_of(stamps.min(), unit), date_of(stamps.max(), unit))


def span_of_numbers(stamps: pl.Series) -> TimeSpan:
    """The span of numbers, as dates in the smallest unit that any of them can have."""
    units = {}
    for unit, (least, above) in UNITS.items():
        count = int(((stamps >= least) & (stamps < above)).sum())
        if count:
            units[unit] = count
    known, least = sum(units.values()), next(iter(UNITS.values()))[0]
    if known < int((stamps >= least).sum()):
        # Some values lie between the ranges of the units: these are counts of something, or generated.
        units = {}
    first, last, smallest = stamps.min(), stamps.max(), next(iter(units), None)
    if smallest is None:
        return TimeSpan(str(first), str(last))
    return TimeSpan(date_of(first, smallest), date_of(last, smallest), units)


def date_of(value: object, unit: str) -> str:
    """The date of a number of seconds, milliseconds … since 1970."""
    seconds = int(value) // PER_SECOND[unit]  # type: ignore[call-overload]
    return str(np.datetime64(seconds, "s")).partition("T")[0]
