"""The files of a data set that is a folder, as Spark and other engines write it: part-00000.parquet, _SUCCESS …"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from tslrec.data.formats.content import require_file
from tslrec.data.formats.wording import brief_list
from tslrec.system.errors import UserError

IGNORED = (".", "_")
"""How the names of files begin that hold no rows: markers, checksums and metadata."""
MOST_DIGITS = 255
"""Digits of the longest number in a file's name, which has 255 bytes at most."""


def files_of(path: Path) -> list[Path]:
    """The file itself, or all files of a folder and its subfolders that hold rows, in the order of their names.

    Numbers in names count as numbers, so that `part-2` comes before `part-10`. Links are followed.

    Raises:
        UserError: if there is no such file, the folder has none or files of several kinds, or a link leads nowhere.
    """
    if not path.is_dir():
        require_file(path)
        return [path]
    found = sorted(files_below(path), key=lambda file: order_of(file.relative_to(path)))
    if not found:
        raise UserError(f"{path}: is a folder without files; give the file of interactions with data.path=FILE")
    kinds = sorted({"".join(file.suffixes[-2:]) for file in found})
    if len({file.suffix for file in found}) > 1:
        raise UserError(
            f"{path}: is a folder with files of several kinds ({brief_list(kinds, 60)}); give the file of interactions "
            "with data.path=FILE, or a folder of its parts alone"
        )
    return found


def order_of(file: Path) -> list[tuple[str, str]]:
    """What the files of a folder are sorted by: the parts of their paths, with numbers of equal length."""
    return [(re.sub("[0-9]+", lambda number: number[0].zfill(MOST_DIGITS), part), part) for part in file.parts]


def files_below(root: Path) -> Iterator[Path]:
    """All files of a folder and its subfolders that hold rows, in any order.

    Linked folders are followed after all others. Each folder is read once, whatever links lead to it; a link back to a
    folder that holds it leads to nothing new.

    Raises:
        UserError: if a folder cannot be read, or a link leads nowhere.
    """
    home = Path(os.path.realpath(root))
    folders, linked, done = [root], list[Path](), set[Path]()
    while folders or linked:
        folder = folders.pop() if folders else linked.pop(0)
        real = Path(os.path.realpath(folder))
        if real in done:
            continue
        done.add(real)
        for entry in entries_of(folder):
            if not entry.is_dir():
                if entry.is_file():
                    yield entry
            elif not entry.is_symlink():
                folders.append(entry)
            elif not any(each.is_relative_to(os.path.realpath(entry)) for each in (real, home)):
                linked.append(entry)


def entries_of(folder: Path) -> list[Path]:
    """The files and folders in a folder that may hold rows, sorted by name.

    Raises:
        UserError: if it cannot be read, or a link leads nowhere.
    """
    try:
        entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith(IGNORED))
        broken = next((entry for entry in entries if entry.is_symlink() and not entry.exists()), None)
    except OSError as error:
        raise UserError(f"{folder}: cannot be read ({error.strerror}); let it be read, or move it away") from error
    if broken is not None:
        raise UserError(f"{broken}: is a link to a file that is not there; restore the file, or remove the link")
    return entries
