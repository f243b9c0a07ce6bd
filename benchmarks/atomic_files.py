"""The data sets as RecBole's atomic files, for the time of a run."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

LAYOUTS = {"beauty": "user_lines", "ml1m": "pair_lines"}
"""`user item item …` a line, or `user item` a line."""


def write_atomic(data: str, path: Path, folder: Path) -> Path:
    """Writes `folder/DATA/DATA.inter`; a timestamp is the place in the user's history."""
    target = folder / data / f"{data}.inter"
    target.parent.mkdir(parents=True)
    places: Counter[str] = Counter()
    with path.open(encoding="utf-8") as source, target.open("w", encoding="utf-8") as out:
        out.write("user_id:token\titem_id:token\ttimestamp:float\n")
        for line in source:
            user, *items = line.split()
            assert LAYOUTS[data] == "user_lines" or len(items) == 1
            for item in items:
                out.write(f"{user}\t{item}\t{places[user]}\n")
                places[user] += 1
    return target
