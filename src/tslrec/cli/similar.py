"""Lists the items nearest to some items, by the cosine of their vectors.

  tslrec similar artifacts i12 i7
  tslrec similar FOLDER B000052YAN -k 20 --without sold_out.txt --out similar.csv

MODEL is a finished run (artifacts/runs/NAME), an artifacts folder with a single run, or a folder of tslrec export.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from tslrec.cli.recommend import add_candidates, add_model
from tslrec.system.errors import UserError

if TYPE_CHECKING:
    import polars as pl

log = logging.getLogger(__name__)

SUMMARY = "list the items nearest to some items"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments to its parser."""
    add_model(parser)
    parser.add_argument("items", nargs="+", metavar="ITEM", help="raw ids")
    parser.add_argument("-k", type=int, default=10, metavar="K", help="items per list; default 10")
    add_candidates(parser)
    parser.add_argument("--out", type=Path, metavar="FILE", help="write .parquet, .csv or .jsonl, which may not exist")


def run(arguments: argparse.Namespace) -> None:
    """Prints a table, or writes a file with the columns item, similar, cosine and rank (and title).

    Raises:
        UserError: if an item is unknown, or a file is wrong.
    """
    import tslrec
    from tslrec.serving.streaming.id_files import read_ids
    from tslrec.serving.streaming.result_files import check_place

    if arguments.out is not None:
        check_place(arguments.out)
        if arguments.out.exists():
            raise UserError(f"--out {arguments.out}: exists already; delete it, or name another file")
    only, without = (None if path is None else read_ids(path) for path in (arguments.only, arguments.without))
    recommender = tslrec.load(
        arguments.model, method=arguments.method, engine=arguments.engine, titles=arguments.titles
    )
    frame = recommender.similar(arguments.items, arguments.k, only=only, without=without)
    if recommender.catalogue.has_titles:
        frame = recommender.titles(frame, "similar")
    if arguments.out is None:
        from tslrec.reports.whole_tables import print_table
        from tslrec.serving.tables import table_of
        from tslrec.system.consoles import plain_console

        print_table(table_of(frame, "item", "similar", "cosine"), plain_console())
    else:
        write(frame, arguments.out)
        log.info(f"{arguments.out}: {len(frame):,} rows")


def write(frame: pl.DataFrame, out: Path) -> None:
    """Writes the lists.

    Raises:
        UserError: if the disk is full, or the file cannot be written.
    """
    import polars as pl

    from tslrec.serving.streaming import result_files
    from tslrec.system.disk_errors import disk_fault
    from tslrec.system.files import write_aside

    try:
        with write_aside(out) as aside:
            result_files.write(frame.lazy(), aside, out.suffix)
    except (OSError, pl.exceptions.PolarsError) as error:
        if (fault := disk_fault(error, out, "make space, or name another file")) is None:
            raise
        raise fault from error
