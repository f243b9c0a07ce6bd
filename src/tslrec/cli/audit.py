"""Prints an audit of a data set: what can be evaluated and trained, what is cut off, and what leaks from the future.

  tslrec audit data=beauty
  tslrec audit data=csv data.path=clicks.csv data.reader.user_column=visitor training.max_len=100
  tslrec audit data=yelp --json yelp.json

It audits one data set at a time. KEY=VALUE as for `python train.py`, whose --help lists the choices.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tslrec.system.errors import UserError

if TYPE_CHECKING:
    from tslrec.data.audit import Audit

SUMMARY = "audit a data set: statistics, and effects on evaluation (data=NAME, data.path=FILE)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments to its parser."""
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for train.py; default data=synthetic")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers to FILE")


def run(arguments: argparse.Namespace) -> None:
    """Audits a data set, writes the JSON if requested, and prints the audit.

    Raises:
        UserError: if the command line, the configuration or the data file is invalid.
    """
    if arguments.json is not None:
        refuse_no_place(arguments.json)
    from rich.console import Console

    from tslrec.data.audit import RowFacts, audit
    from tslrec.data.ingest import count_duplicates, encode, filter_and_number, read_raw, without_duplicates
    from tslrec.data.item_titles import match_titles
    from tslrec.data.statistics import fraction
    from tslrec.data.titles_file import optional_titles_path, read_titles_file
    from tslrec.pipeline.check import check_data
    from tslrec.pipeline.composition import compose_overrides
    from tslrec.reports.audit_view import print_audit

    config = compose_overrides(arguments.overrides)
    check_data(config)
    # Ingestion refuses duplicates. Here they are counted, since their number helps to repair the file.
    raw, where = read_raw(config.data, Path(config.cache))
    duplicates = fraction(count_duplicates(raw.rows), len(raw.rows)) if raw.has_timestamps else None
    raw = without_duplicates(raw)
    interactions = filter_and_number(encode(raw), config.data, where)
    read = len(raw.rows)
    rows = RowFacts(read, raw.reading, fraction(read - interactions.num_interactions, read))
    path = optional_titles_path(config.data, Path(config.cache))
    titles = None if path is None else match_titles(interactions.ids.items, read_titles_file(path))[1]
    facts = audit(interactions, config.training.max_len, duplicates, rows, titles)
    if arguments.json is not None:
        write(arguments.json, config.data.name, where, facts)
    print_audit(config.data.title, facts, Console(), duplicates=raw.duplicates)


def refuse_no_place(path: Path) -> None:
    """Refuses, before any work, an output file that is a folder or whose folder does not exist.

    Raises:
        UserError: if so.
    """
    if path.is_dir():
        raise UserError(f"--json {path}: is a folder; name a file in it")
    if not path.parent.is_dir():
        raise UserError(f"--json {path}: there is no folder {path.parent}; make it, or name another file")


def write(path: Path, name: str, source: str, facts: Audit) -> None:
    """Writes the facts with the data set's name and source as JSON.

    Raises:
        UserError: if the file cannot be written.
    """
    from tslrec.system.files import write_json

    try:
        write_json(path, {"data": name, "source": source, **asdict(facts)})
    except OSError as error:
        raise UserError(f"--json {path}: {error.strerror or error}; name a file that can be written") from error
