r"""The text of a raw file as UTF-8 bytes with `\n` line ends: unpacked, decoded and checked."""

from __future__ import annotations

import bz2
import codecs
import gzip
import lzma
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tslrec.data.formats.wording import INTERACTIONS, FileKind, brief_list
from tslrec.system.errors import UserError

BLOCK_BYTES = 1 << 24
"""Bytes that are decoded at a time."""


@dataclass(frozen=True)
class Content:
    r"""A text file.

    Attributes:
        data: UTF-8 without a byte-order mark; lines end with `\n`.
        notes: what was done to it, for the audit.
        kind: what messages call it.
    """

    data: bytes
    notes: tuple[str, ...] = ()
    kind: FileKind = INTERACTIONS


def unpack_zstandard(packed: bytes) -> bytes:
    """Unpacks Zstandard with Polars, as Python has no such module before 3.14. Raises ValueError."""
    import polars as pl

    try:
        text = pl.read_lines(packed).to_series().str.join("\n").item()
    except pl.exceptions.PolarsError as error:
        raise ValueError(str(error)) from error
    return str(text or "").encode()


PACKED: dict[bytes, tuple[str, Callable[[bytes], bytes]]] = {
    b"\x1f\x8b": ("gzip", gzip.decompress),
    b"BZh": ("bzip2", bz2.decompress),
    b"\xfd7zXZ\0": ("xz", lzma.decompress),
    b"\x28\xb5\x2f\xfd": ("Zstandard", unpack_zstandard),
}
"""How files in each compressed format begin, its name, and how it is unpacked."""
ENCODED = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
"""Byte-order marks; those of UTF-32 first, as one begins like that of UTF-16."""


def read_content(path: Path, kind: FileKind = INTERACTIONS) -> Content:
    """Reads a text file, unpacked if it is compressed; UTF-16 and UTF-32 with a byte-order mark are decoded.

    Args:
        path: the file.
        kind: what messages call it.

    Raises:
        UserError: if there is no such file, or it is empty, damaged, binary or in another encoding.
    """
    require_file(path, kind)
    notes = []
    data = path.read_bytes()
    packing = packing_of(data)
    if packing is not None:
        data = unpack(data, path)
        notes.append(f"Unpacked from {packing}.")
    refuse_other_formats(data, path, kind)
    encoding = next((name for mark, name in ENCODED.items() if data.startswith(mark)), None)
    if encoding is not None:
        data = decoded(data, encoding, path).encode()
        notes.append(f"Decoded from {encoding}.")
    data = data.removeprefix(codecs.BOM_UTF8)
    if not data.strip():
        raise UserError(f"{path}: is empty; give a file with {kind.rows}")
    # What an editor calls a line: it ends with \n, \r\n or a lone \r.
    if b"\r" in data:
        data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    refuse_other_encodings(data, path)
    return Content(data, tuple(notes), kind)


def packing_of(data: bytes) -> str | None:
    """The name of the compressed format; None for a plain file."""
    return next((name for mark, (name, _) in PACKED.items() if data.startswith(mark)), None)


def unpack(data: bytes, path: Path) -> bytes:
    """Unpacks a compressed file.

    Raises:
        UserError: if it is damaged or cut off.
    """
    name, unpacked = next(each for mark, each in PACKED.items() if data.startswith(mark))
    try:
        return unpacked(data)
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        what = "damaged, cut off or not UTF-8 text inside" if name == "Zstandard" else "damaged or cut off"
        raise UserError(f"{path}: is {name}, but {what}; download it again, or give the unpacked file") from error


def refuse_other_formats(data: bytes, path: Path, kind: FileKind) -> None:
    """Refuses what is no text table, and says what to do.

    Raises:
        UserError: if it is an archive, a workbook, Parquet or JSON.
    """
    if data.startswith(b"PK\x03\x04"):
        raise UserError(f"{path}: is {archive(path, kind)}")
    if data[257:262] == b"ustar":
        raise UserError(f"{path}: is a tar archive; unpack it (tar xf) and give the file in it with {kind.given}")
    if data.startswith(b"PAR1"):
        raise UserError(f"{path}: is Parquet; choose data=parquet")
    if data.startswith(b"SQLite format 3\0"):
        raise UserError(f"{path}: is an SQLite database; export its table of {kind.rows} as CSV")
    if data.startswith((b'{"', b"[{")):
        raise UserError(f"{path}, line 1: is JSON; export the {kind.rows} as CSV or Parquet")


def archive(path: Path, kind: FileKind) -> str:
    """What a file in the zip format is, and what to do."""
    try:
        with zipfile.ZipFile(path) as opened:
            names = [name for name in opened.namelist() if not name.endswith("/")]
    except (zipfile.BadZipFile, OSError):
        names = []
    if any(name.startswith("xl/") for name in names):
        return f"an Excel workbook; save it as `CSV UTF-8`, and give that file with {kind.given}"
    held = f" that holds {brief_list(names, 60)}" if names else ""
    return f"a zip archive{held}; unpack it and give the file of {kind.rows} with {kind.given}"


def decoded(data: bytes, encoding: str, path: Path) -> str:
    """Decodes UTF-16 or UTF-32.

    Raises:
        UserError: if it is damaged.
    """
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        line = data[: error.start].decode(encoding, "ignore").count("\n") + 1
        raise UserError(f"{path}, line {line}: is not valid {encoding}; save the file as UTF-8") from error


def refuse_other_encodings(data: bytes, path: Path) -> None:
    """Refuses what is not UTF-8, with its line.

    Raises:
        UserError: if it holds NUL bytes or bytes that are not UTF-8.
    """
    nul = data.find(b"\0")
    if nul >= 0:
        line = data.count(b"\n", 0, nul) + 1
        sample = data[:200]
        if line == 1 and 0.3 < sample.count(0) / len(sample) < 0.7:
            raise UserError(f"{path}: seems to be UTF-16 without a byte-order mark; save it as UTF-8")
        raise UserError(f"{path}, line {line}: holds a NUL byte, so it is not text; remove it, or give the text file")
    if data.isascii():
        return
    decoder = codecs.getincrementaldecoder("utf-8")()
    for start in range(0, len(data), BLOCK_BYTES):
        block = data[start : start + BLOCK_BYTES]
        try:
            decoder.decode(block, final=start + BLOCK_BYTES >= len(data))
        except UnicodeDecodeError as error:
            # The decoder's positions count from the bytes of a sign that the block before had begun.
            bad = start + len(block) - len(error.object) + error.start
            line = data.count(b"\n", 0, bad) + 1
            raise UserError(
                f"{path}, line {line}: is not UTF-8 text (Latin-1, perhaps); save the file as UTF-8: "
                "iconv -f latin1 -t utf8"
            ) from error


def require_file(path: Path, kind: FileKind = INTERACTIONS) -> None:
    """Raises a `UserError` if a path does not exist or is a folder."""
    if path.is_dir():
        raise UserError(f"{path}: is a folder; give the file in it with {kind.given}")
    if not path.is_file():
        raise UserError(f"{path}: there is no such file; give the right one with {kind.given}")
