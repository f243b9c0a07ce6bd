"""Files that list raw ids: one a line, or in a column."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl

from tslrec.data.interactions import IdMap
from tslrec.serving.engine import Ids
from tslrec.system.errors import UserError


def read_ids(path: Path) -> list[str]:
    """Reads one raw id per line; blanks around it and empty lines are ignored.

    Raises:
        UserError: if the file is missing, is no text, or names no id.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except FileNotFoundError as error:
        raise UserError(f"{path}: there is no such file") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as text ({error}); write one id per line") from error
    if not (ids := [line.strip() for line in lines if line.strip()]):
        raise UserError(f"{path}: names no id; write one per line")
    return ids


def read_users(path: Path) -> list[str]:
    """Reads raw user ids: the column `user` of a `.csv` or `.parquet` file, or one id per line of any other.

    Raises:
        UserError: if the file is missing, cannot be read, lacks the column, or names no user.
    """
    if path.suffix not in (".csv", ".parquet"):
        return read_ids(path)
    if not path.is_file():
        raise UserError(f"{path}: there is no such file")
    try:
        frame = (
            pl.read_parquet(path, glob=False)
            if path.suffix == ".parquet"
            else pl.read_csv(path, infer_schema=False, glob=False)
        )
    except (pl.exceptions.PolarsError, OSError) as error:
        raise UserError(f"{path}: not readable ({str(error).splitlines()[0]}); write it again") from error
    if "user" not in frame.columns:
        raise UserError(f"{path}: has the columns {', '.join(frame.columns)}; a column user is needed")
    if frame["user"].dtype.is_nested():
        raise UserError(f"{path}: the column user holds {frame['user'].dtype}; give one id a row")
    users = frame["user"].cast(pl.String).drop_nulls().to_list()
    if not users:
        raise UserError(f"{path}: names no user; give a row for each")
    return users


def rows_of_users(users: list[str], ids: IdMap, path: Path) -> Ids:
    """The rows of users in their data set, int64; a user who is named twice counts once.

    Args:
        users: raw ids.
        ids: the data set's.
        path: names the file in the message.

    Raises:
        UserError: if the data set lacks a user.
    """
    row_of = {raw_id: row for row, raw_id in enumerate(ids.users)}
    wanted = list(dict.fromkeys(users))
    if missing := [user for user in wanted if user not in row_of]:
        more = f" and {len(missing) - 1:,} others" if len(missing) > 1 else ""
        raise UserError(f"{path}: the run's data set has no user {missing[0]!r}{more}; give their items in --histories")
    return np.array([row_of[user] for user in wanted], dtype=np.int64)
