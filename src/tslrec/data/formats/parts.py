"""The files of a data set that is a folder, as Spark and other engines write it: part-00000.parquet, _SUCCESS …"""

from __future__ import annotations

from pathlib import Path

from tslrec.data.formats.content import require_file
from tslrec.data.formats.wording import brief_list
from tslrec.system.errors import UserError

IGNORED = (".", "_")
"""How the names of files begin that hold no rows: markers, checksums and metadata."""


def files_of(path: Path) -> list[Path]:
    """The file itself, or all files of a folder and its subfolders that hold rows, sorted by name.

    Raises:
        UserError: if there is no such file, or the folder has none or files of several kinds.
    """
    if not path.is_dir():
        require_file(path)
        return [path]
    found = sorted(
        file
        for file in path.rglob("*")
        if file.is_file() and not any(part.startswith(IGNORED) for part in file.relative_to(path).parts)
    )
    if not found:
        raise UserError(f"{path}: is a folder without files; give the file of interactions with data.path=FILE")
    kinds = sorted({"".join(file.suffixes[-2:]) for file in found})
    if len({file.suffix for file in found}) > 1:
        raise UserError(
            f"{path}: is a folder with files of several kinds ({brief_list(kinds, 60)}); give the file of interactions "
            "with data.path=FILE, or a folder of its parts alone"
        )
    return found
