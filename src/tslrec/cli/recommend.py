"""Recommends items with a trained recommender.

  tslrec recommend artifacts --history "i12 i7 i40"            a table on the terminal
  tslrec recommend artifacts --all-users --out recs.parquet    every user of the run's data set
  tslrec recommend FOLDER --histories new.parquet -k 20 --out recs.csv
  torchrun --nproc-per-node 2 -m tslrec.cli.main recommend artifacts --histories FILE --out recs.parquet

MODEL is a finished run (artifacts/runs/NAME), an artifacts folder with a single run, or a folder of tslrec export.
Histories are Parquet with the columns user and items (lists of raw ids, oldest first), Parquet or CSV with the columns
user and item (each user's rows in time order), or JSON lines {"user": …, "items": […]}. Only Parquet files with lists
are read by row groups, in memory that does not grow with their size; the others are read whole.

With --out, users are computed shard by shard into FILE.parts, and joined into FILE at the end. Several processes
(torchrun, srun) share the shards. Any of them may be killed; the same command resumes with the finished shards. FILE
has the columns user, item, score and rank. Without --out, a table shows the first ten users.
"""

from __future__ import annotations

import argparse
import logging
import signal
from pathlib import Path
from typing import TYPE_CHECKING

from tslrec.system.errors import StoppedError, UserError
from tslrec.system.interruptions import Interruption

if TYPE_CHECKING:
    from tslrec.serving.recommender import Recommender
    from tslrec.serving.streaming.plan import Request
    from tslrec.serving.streaming.sources import HistorySource
    from tslrec.serving.streaming.stream import Totals

log = logging.getLogger(__name__)

SUMMARY = "recommend items to users with a trained recommender"
SHOWN = 10
"""Users that a table on the terminal shows."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments to its parser."""
    add_model(parser)
    whom = parser.add_mutually_exclusive_group(required=True)
    whom.add_argument("--histories", type=Path, metavar="FILE", help="histories: .parquet, .csv or .jsonl (see above)")
    whom.add_argument("--history", action="append", metavar='"A B C"', help="raw ids of one user; may be repeated")
    whom.add_argument(
        "--users", type=Path, metavar="FILE", help="users of the run: .csv or .parquet (column user), or one id a line"
    )
    whom.add_argument("--all-users", action="store_true", help="all users of the run, with their whole histories")
    parser.add_argument("--leave-out", type=int, default=0, metavar="N", help="leave out each user's last N items")
    parser.add_argument("-k", type=int, default=10, metavar="K", help="items per user; default 10")
    parser.add_argument("--keep-seen", action="store_true", help="recommend items of the history too")
    add_candidates(parser)
    parser.add_argument(
        "--unknown-items", choices=("drop", "refuse"), default="drop", help="items of a history that the model lacks"
    )
    parser.add_argument(
        "--cold", choices=("popular", "refuse", "skip"), default="popular", help="users without a known item"
    )
    parser.add_argument("--out", type=Path, metavar="FILE", help="write .parquet, .csv or .jsonl, which may not exist")
    parser.add_argument(
        "--shard-size", type=int, default=50_000, metavar="N", help="users of a shard of --out; default 50000"
    )


def add_model(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that name a recommender."""
    parser.add_argument("model", type=Path, metavar="MODEL", help="a run, or a folder of tslrec export")
    parser.add_argument("--method", metavar="NAME", help="one of the methods that a run compared")
    parser.add_argument("--titles", type=Path, metavar="FILE", help="CSV or Parquet with item_id and title")
    parser.add_argument("--engine", default="auto", metavar="NAME", help="auto, pytorch or onnxruntime")


def add_candidates(parser: argparse.ArgumentParser) -> None:
    """Adds the arguments that limit what may be listed."""
    parser.add_argument("--only", type=Path, metavar="FILE", help="list only these items: a raw id a line")
    parser.add_argument("--without", type=Path, metavar="FILE", help="never list these items: a raw id a line")


def run(arguments: argparse.Namespace) -> None:
    """Recommends, and prints a table or where the file is.

    Raises:
        UserError: if an argument or a file is wrong, or the disk is full.
        StoppedError: after a signal, such as Ctrl-C.
    """
    from tslrec.system import processes

    first = processes.is_rank_zero()
    if not first:
        processes.mute_rank()
    if arguments.out is None:
        if first:
            show(arguments)
        return
    if may_begin(arguments.out, first=first):
        try:
            write(arguments, first=first)
        except (Interruption, KeyboardInterrupt) as stop:
            if not first:
                raise
            message = f"{arguments.out}: stopped; the same command resumes with the finished shards"
            number = stop.signal if isinstance(stop, Interruption) else signal.SIGINT
            raise StoppedError(message, number) from stop


def may_begin(out: Path, *, first: bool) -> bool:
    """Whether the result is still to be made; rank 0 may have finished it while another rank was being started.

    Raises:
        UserError: if the file cannot be written, or exists on rank 0.
    """
    from tslrec.serving.streaming.parts import parts_folder
    from tslrec.serving.streaming.result_files import check_place

    check_place(out)
    if not out.exists():
        return True
    if first and not parts_folder(out).exists():
        raise UserError(f"--out {out}: exists already; delete it, or name another file")
    return first


def show(arguments: argparse.Namespace) -> None:
    """Prints what is recommended to the first users."""
    from tslrec.reports.whole_tables import print_table
    from tslrec.serving.streaming.stream import recommend_range
    from tslrec.serving.tables import table_of
    from tslrec.system.consoles import plain_console

    recommender, source, request = prepare(arguments)
    frame, totals = recommend_range(recommender, source, request, slice(0, min(SHOWN, source.num_users)))
    if recommender.catalogue.has_titles:
        frame = recommender.titles(frame)
    print_table(table_of(frame, "user", "item", "score", without_value="popular"), plain_console())
    report(totals, request)
    if (more := source.num_users - totals.users) > 0:
        log.info(f"{count(more, 'more user')}; --out FILE writes all")


def write(arguments: argparse.Namespace, *, first: bool) -> None:
    """Writes the file, together with the other processes of the job."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from tslrec.serving.streaming.stream import recommend_to_file
    from tslrec.system.consoles import plain_console

    if arguments.shard_size < 1:
        raise UserError(f"--shard-size {arguments.shard_size}: must be 1 or more")
    recommender, source, request = prepare(arguments)
    console = plain_console()
    columns = (TextColumn("recommend · users"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not (first and console.is_terminal)) as bar:
        task = bar.add_task("", total=source.num_users)
        totals = recommend_to_file(
            recommender,
            source,
            request,
            arguments.out,
            shard_size=arguments.shard_size,
            first=first,
            progress=lambda users: bar.update(task, completed=users),
        )
    if totals is not None:
        report(totals, request)
        log.info(f"{arguments.out}: {totals.rows:,} rows of user, item, score and rank")
    elif first:
        log.info(f"{arguments.out}: was complete already")


def prepare(arguments: argparse.Namespace) -> tuple[Recommender, HistorySource, Request]:
    """Opens the histories, and loads the recommender.

    Raises:
        UserError: if one is wrong.
    """
    import tslrec
    from tslrec.serving.streaming.id_files import read_ids
    from tslrec.serving.streaming.plan import Request

    source = source_of(arguments)
    limits = [None if path is None else read_ids(path) for path in (arguments.only, arguments.without)]
    recommender = tslrec.load(
        arguments.model, method=arguments.method, engine=arguments.engine, titles=arguments.titles
    )
    recommender.check_length(arguments.k)
    request = Request(
        k=arguments.k,
        filter_seen=not arguments.keep_seen,
        candidates_C=recommender.candidates(*limits),
        unknown_items=arguments.unknown_items,
        cold=arguments.cold,
    )
    return recommender, source, request


def source_of(arguments: argparse.Namespace) -> HistorySource:
    """The histories that the arguments name.

    Raises:
        UserError: if a file is wrong, or an export is asked for the users of a run.
    """
    import polars as pl

    from tslrec.serving.folder import is_export
    from tslrec.serving.streaming.history_files import open_histories
    from tslrec.serving.streaming.sources import HeldHistories

    of_run = arguments.all_users or arguments.users is not None
    if arguments.leave_out < 0:
        raise UserError(f"--leave-out {arguments.leave_out}: must be 0 or more, a number of items")
    if arguments.leave_out and not of_run:
        raise UserError("--leave-out: is for --all-users and --users; write histories without the items to leave out")
    if arguments.histories is not None:
        return open_histories(arguments.histories)
    if arguments.history is not None:
        lists = [each.split() for each in arguments.history]
        frame = pl.DataFrame(
            {"user": range(1, len(lists) + 1), "items": lists},
            schema={"user": pl.Int64, "items": pl.List(pl.String)},
        )
        return HeldHistories(frame, {"given": lists})
    if is_export(arguments.model):
        raise UserError(f"{arguments.model}: an export knows no users; name the run, or give --histories FILE")
    return run_users(arguments)


def run_users(arguments: argparse.Namespace) -> HistorySource:
    """Users of a run's data set, with their histories.

    Raises:
        UserError: if there is no such run, or no such user in its data set.
    """
    from tslrec.serving.run_folder import open_run
    from tslrec.serving.streaming.id_files import read_users, rows_of_users
    from tslrec.serving.streaming.sources import DatasetUsers

    users = None if arguments.users is None else read_users(arguments.users)
    interactions = open_run(arguments.model, arguments.method).interactions()
    rows_U = None if users is None else rows_of_users(users, interactions.ids, arguments.users)
    return DatasetUsers(interactions, rows_U, leave_out=arguments.leave_out)


def report(totals: Totals, request: Request) -> None:
    """Says how many users there were, what was left out, and which ranking protocol that is."""
    seen = "left out" if request.filter_seen else "not left out"
    parts = [
        count(totals.users, "user"),
        f"items of the history are {seen}: the ranking protocol {request.protocol}",
    ]
    if totals.unknown_items:
        parts.append(f"{count(totals.unknown_items, 'unknown item')} dropped")
    if totals.cold_users:
        parts.append(f"{count(totals.cold_users, 'user')} without a known item ({request.cold})")
    log.info("; ".join(parts))


def count(number: int, what: str) -> str:
    """A number and what it counts, in the singular or the plural."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"
