"""Prints what a careful person asks of a data set: what can be evaluated, trained, lost and leaked.

  tslrec audit data=beauty
  tslrec audit data=csv data.path=clicks.csv data.reader.user_column=visitor training.max_len=100
  tslrec audit data=yelp --json yelp.json

One data set at a time. Choices and numbers are those of `python train.py`, whose --help lists them.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from tslrec.errors import UserError

if TYPE_CHECKING:
    from tslrec.audit import Audit

SUMMARY = "what a data set holds, and what it does to evaluation (data=NAME, data.path=FILE)"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="as for train.py; default data=synthetic")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers there as well")


def run(arguments: argparse.Namespace) -> None:
    """Audits a data set, writes the JSON if one is wanted, and prints.

    Raises:
        UserError: for what a person can put right in the command line, the configuration or the file.
    """
    if arguments.json is not None:
        refuse_no_place(arguments.json)
    from rich.console import Console

    from tslrec.audit import audit
    from tslrec.audit_view import print_audit
    from tslrec.check import check_data
    from tslrec.composition import compose_overrides
    from tslrec.ingest import count_duplicates, encode, filter_and_number, read_raw
    from tslrec.part import part

    config = compose_overrides(arguments.overrides)
    check_data(config)
    # Ingestion refuses duplicates; here they are counted, for who mends the file wants to know how many there are.
    raw, where = read_raw(config.data, Path(config.cache))
    duplicates = part(count_duplicates(raw.rows), len(raw.rows)) if raw.has_timestamps else None
    interactions = filter_and_number(encode(raw), config.data, where)
    facts = audit(interactions, config.training.max_len, duplicates)
    if arguments.json is not None:
        write(arguments.json, config.data.name, where, facts)
    print_audit(config.data.title, facts, Console())


def refuse_no_place(path: Path) -> None:
    """Refuses, before any work, a file that cannot be written for want of its folder."""
    if path.is_dir():
        raise UserError(f"--json {path}: is a folder; name a file in it")
    if not path.parent.is_dir():
        raise UserError(f"--json {path}: there is no folder {path.parent}; make it, or name another file")


def write(path: Path, name: str, source: str, facts: Audit) -> None:
    """Writes the facts, with the data set's name and where it was read from."""
    from tslrec.files import write_json

    try:
        write_json(path, {"data": name, "source": source, **asdict(facts)})
    except OSError as error:
        raise UserError(f"--json {path}: {error.strerror or error}; name a file that can be written") from error
