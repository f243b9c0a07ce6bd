"""The file of all recommendations: Parquet, CSV or JSON lines, joined from the parts without holding them in memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import polars as pl

from tslrec.system.errors import UserError
from tslrec.system.files import write_aside

SUFFIXES = (".parquet", ".csv", ".jsonl")

ROW_GROUP = 500_000
"""Rows of a row group of the Parquet file."""


def check_place(out: Path) -> None:
    """Refuses, before any work, a file that cannot be the result.

    Raises:
        UserError: if its ending is unknown, or its folder does not exist.
    """
    if out.suffix not in SUFFIXES:
        raise UserError(f"--out {out}: name a file that ends in {', '.join(SUFFIXES)}")
    if not out.parent.is_dir():
        raise UserError(f"--out {out}: there is no folder {out.parent}; make it, or name another file")


def join(parts: Sequence[Path], out: Path) -> int:
    """Writes the rows of all parts, in order, into one file, which appears when it is complete.

    Args:
        parts: Parquet files.
        out: the file; its ending decides the format.

    Returns:
        Number of rows.
    """
    rows = pl.scan_parquet(list(parts), glob=False)
    with write_aside(out) as aside:
        write(rows, aside, out.suffix)
    return int(rows.select(pl.len()).collect().item())


def write(rows: pl.LazyFrame, path: Path, suffix: str) -> None:
    """Writes rows batch by batch.

    Args:
        rows: the rows.
        path: the file.
        suffix: `.parquet`, `.csv` or `.jsonl`.
    """
    if suffix == ".csv":
        rows.sink_csv(path)
    elif suffix == ".jsonl":
        rows.sink_ndjson(path)
    else:
        rows.sink_parquet(path, row_group_size=ROW_GROUP)
