"""What a run's recommender recommends to some of its users, for the eye: shown at the end of the run."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
from rich.console import Console
from rich.table import Table

from tslrec.reports.whole_tables import print_table
from tslrec.serving.loading import load
from tslrec.serving.recommender import Recommender
from tslrec.serving.run_folder import open_run
from tslrec.serving.run_histories import histories_of
from tslrec.system.errors import UserError

SHOWN = 5
"""Items shown of a history (its last ones), and of a list."""


def print_examples(folder: Path, count: int, console: Console) -> None:
    """Prints the histories of some users, spread over the data set, beside what is recommended to them.

    Some methods recommend to no histories, or to nobody; a line says so, since the run is complete all the same.

    Args:
        folder: of the finished run.
        count: number of users.
        console: on which it is printed.
    """
    run = open_run(folder)
    try:
        recommender, interactions = load(folder), run.interactions()
    except UserError as error:
        console.print(f"No examples: {error}", soft_wrap=True)
        return
    users = np.linspace(0, interactions.num_users - 1, min(count, interactions.num_users), dtype=np.int64)
    histories = histories_of(interactions, users)
    lists = recommender.recommend(histories, min(SHOWN, interactions.num_items))
    table = Table(title=f"Recommended by {run.result['method']}", title_justify="left", show_lines=True)
    for heading in ("user", f"the last {SHOWN} items of the history, newest first", "recommended, best first"):
        table.add_column(heading)
    for position, user in enumerate(histories.users):
        had = histories.items[histories.offsets[position] : histories.offsets[position + 1]][: -SHOWN - 1 : -1]
        listed = lists.filter(pl.col("user") == user)["item"]
        wanted = [*recommender.catalogue.raw_ids.gather(had), *listed]
        names = named(recommender, wanted)
        table.add_row(str(user), "\n".join(names[: len(had)]), "\n".join(names[len(had) :]))
    print_table(table, console)
    console.print(f"More: tslrec recommend {folder} --all-users --out recommendations.parquet", soft_wrap=True)


def named(recommender: Recommender, raw_ids: list[str]) -> list[str]:
    """Titles of items; the raw id of an item without a title."""
    titled = recommender.titles(pl.DataFrame({"item": raw_ids}, schema={"item": pl.String}))
    return [title or item for item, title in titled.iter_rows()]
