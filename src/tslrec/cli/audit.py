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

from tslrec.reports import json_file

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
        json_file.refuse_no_place(arguments.json)
    from tslrec.data.audit import RowFacts, audit
    from tslrec.data.ingest import count_duplicates, encode, filter_and_number, read_raw, without_duplicates
    from tslrec.data.item_titles import match_titles
    from tslrec.data.statistics import fraction
    from tslrec.data.titles_file import optional_titles_path, read_titles_file
    from tslrec.pipeline.check import check_data
    from tslrec.pipeline.composition import compose_overrides
    from tslrec.reports.audit_view import print_audit
    from tslrec.system.consoles import plain_console
    from tslrec.system.disk_errors import disk_fault

    config = compose_overrides(arguments.overrides)
    check_data(config)
    # Ingestion refuses duplicates. Here they are counted, since their number helps to repair the file.
    try:
        raw, where = read_raw(config.data, Path(config.cache))
    except OSError as error:
        if (fault := disk_fault(error)) is None:
            raise
        raise fault from error
    duplicates = fraction(count_duplicates(raw.rows), len(raw.rows)) if raw.has_timestamps else None
    raw = without_duplicates(raw)
    interactions = filter_and_number(encode(raw), config.data, where)
    read = len(raw.rows)
    rows = RowFacts(read, raw.reading, fraction(read - interactions.num_interactions, read))
    path = optional_titles_path(config.data, Path(config.cache))
    titles = None if path is None else match_titles(interactions.ids.items, read_titles_file(path))[1]
    facts = audit(interactions, config.training.max_len, duplicates, rows, titles)
    if arguments.json is not None:
        json_file.write(arguments.json, {"data": config.data.name, "source": where, **asdict(facts)})
    print_audit(config.data.title, facts, plain_console(), duplicates=raw.duplicates)
