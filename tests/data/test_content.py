"""What is wrong with a text file is said with the right line, wherever blocks of it end."""

from __future__ import annotations

from pathlib import Path

import pytest

from tslrec.data.formats import content
from tslrec.system.errors import UserError


@pytest.mark.parametrize("block", [1, 2, 3, 5, 8, 1 << 24])
@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("é,1\nè,2\n".encode() + b"\xe8,3\n", 3),
        (b"\xc3\xa9a\n\xe2\x82\xac\n\n\xe2\x82\n", 4),
        (b"a\n\xf0\x9f\x98\x80b\nc\xf0\x9f", 3),
        (b"\xa9 \xc3\xa9\n", 1),
    ],
)
def test_bytes_that_are_not_utf_8_are_named_by_their_line(
    text: bytes, line: int, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(content, "BLOCK_BYTES", block)
    path = tmp_path / "a.csv"
    path.write_bytes(text)
    with pytest.raises(UserError, match=rf"a\.csv, line {line}: is not UTF-8 text"):
        content.read_content(path)
