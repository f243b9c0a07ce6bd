"""Files of item titles: each line is read, or refused in one line that names it; and where the file is looked for."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import lzma
import re
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tslrec.data.titles_file import first_titles, optional_titles_path, read_titles_file, titles_path
from tslrec.settings.data import DataConfig
from tslrec.system.errors import UserError

PLAIN = b"item_id,title\n1,Soap\n2,\n"
ROWS = [("1", "Soap"), ("2", "")]


def written(folder: Path, content: bytes | str, name: str = "titles.csv") -> Path:
    path = folder / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def rows_of(folder: Path, content: bytes | str, name: str = "titles.csv") -> list[tuple[str, str]]:
    return list(read_titles_file(written(folder, content, name)).iter_rows())


def refusal(folder: Path, content: bytes | str, name: str = "titles.csv") -> str:
    """The message, which names the file and fits on one line."""
    path = written(folder, content, name)
    with pytest.raises(UserError) as refused:
        read_titles_file(path)
    line = str(refused.value)
    assert line.startswith(str(path))
    assert "\n" not in line
    assert "data.reader" not in line
    assert "data.path" not in line
    return line.removeprefix(str(path))


def read_or_line(path: Path) -> pl.DataFrame | str:
    """The rows of a file, or the one line in which it is refused, without the file's name."""
    try:
        return read_titles_file(path)
    except UserError as error:
        line = str(error).removeprefix(str(path))
    assert "\n" not in line
    assert len(line) < 300
    return line


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        b"\xef\xbb\xbf" + PLAIN.replace(b"\n", b"\r\n"),
        PLAIN.decode().encode("utf-16"),
        b"\nitem_id,title\n\n1,Soap\n\n2,\n\n",
        b"item_id;title\n1;Soap\n2;\n",
        b"item_id\ttitle\n1\tSoap\n2\t\n",
        b'title,"item_id",price\nSoap,1,3.5\n  ,2,\n',
        gzip.compress(PLAIN, mtime=0),
        bz2.compress(PLAIN),
        lzma.compress(PLAIN),
    ],
    ids=["plain", "mark", "utf-16", "blanks", "semicolon", "tab", "columns", "gz", "bz2", "xz"],
)
def test_a_table_is_read_as_it_is_written(content: bytes, tmp_path: Path) -> None:
    assert rows_of(tmp_path, content) == ROWS


def test_white_space_in_a_title_is_one_blank(tmp_path: Path) -> None:
    text = 'item_id,title\n1," Soap,\n  of\t""Aleppo"" "\n2,6" nail\n 3,\u2028\n'
    assert rows_of(tmp_path, text) == [("1", 'Soap, of "Aleppo"'), ("2", '6" nail'), (" 3", "")]


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ('item_id\ttitle\n1\t"a\tb"\n2\tz\n', "a b"),
        ('item_id\ttitle\n1\t"a\nb ""c"""\n2\tz\n', 'a b "c"'),
        ('"item_id"\t"title"\n"1"\t"a\r\n\r\nb"\r\n"2"\t"z"\n', "a b"),
        ('item_id,title\n1,"a, b\nc, d"\n2,z\n', "a, b c, d"),
        ('item_id,title\n1,"a, b\nc, d\ne, f, g"\n\n2,"z"\n', "a, b c, d e, f, g"),
        ('price,item_id,title\n3,1,"a, b\nc, d, e"\n4,2,z', "a, b c, d, e"),
    ],
)
def test_a_quoted_title_holds_separators_and_goes_over_several_lines(text: str, title: str, tmp_path: Path) -> None:
    assert rows_of(tmp_path, text) == [("1", title), ("2", "z")]


@pytest.mark.parametrize("title", ['"Cats" live', '6" nail', '"open', "'a'", '""', '"a" and "b"'])
def test_quotes_are_signs_in_a_file_with_tabs_whose_lines_are_rows(title: str, tmp_path: Path) -> None:
    read = {'""': ""}.get(title, title)
    assert rows_of(tmp_path, f'item_id\ttitle\n1\t{title}\n2\t12"\n') == [("1", read), ("2", '12"')]


@pytest.mark.parametrize(("packing", "name"), [(bytes, "titles.parquet"), (bytes, "titles"), (gzip.compress, "t.gz")])
def test_parquet_is_known_by_its_content(packing: Callable[[bytes], bytes], name: str, tmp_path: Path) -> None:
    frame = pl.DataFrame({"price": [1.0, 2.0], "title": ["Soap", None], "item_id": [1, 2]})
    content = io.BytesIO()
    frame.write_parquet(content)
    assert rows_of(tmp_path, packing(content.getvalue()), name) == ROWS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ": is empty; give a file with titles"),
        (b"item_id,title\n", ": has a header, but no titles; give a file with titles"),
        (b"id,name\n1,Soap\n", ", line 1: has the columns id, name, but no 'item_id'; titles need item_id and title"),
        (b"item_id,titel\n1,Soap\n", "titles need item_id and title; rename 'titel'"),
        (b"item_id,title,title\n1,a,b\n", ", line 1: has 2 columns 'title'; rename one of them"),
        (b"item_id\n1\n", ", line 1: has no separator comma, so no column 'item_id', only 'item_id'"),
        (b"item_id,title\n1,Soap\n2,Soap, liquid\n", ", line 3: has 3 fields, but line 1 has 2 (separator comma)"),
        (b"item_id,title\n1,Soap, liquid\n2\n", ", line 2: has 3 fields, but line 1 has 2"),
        (b'item_id,title\n1,Soap\n2,"Oil\n3,Salt\n', ", line 3: a quote is not closed"),
        (b'item_id,title\n1,"Oil\n3,Salt\n4,12"\n', ", line 2: a quote swallows 2 lines that look like rows"),
        (
            b'item_id,title\n1,"1,000 nails\n2,000 nails"\n',
            "lines that look like rows; close it, or write the field on one",
        ),
        (b"item_id\ttitle\n1\ta\tb\n", "enclose fields that hold a tab in double quotes"),
        (b'item_id\ttitle\n1\t"a\tb" c\n', ", line 2: a quote is not closed, or goes on after its end"),
        (b'item_id\ttitle\n1\t"a\n2\tb\tc\n3\t12"\n', ", line 2: a quote swallows 2 lines that look like rows"),
        (b'item_id,title\n"1\n2",Soap\n', ", line 2: field 1 goes on to the next line"),
        (b"item_id,title\n1,Soap\n ,Oil\n", ", line 3: 'item_id' is empty; fill it, or remove the line"),
        ("item_id,title\n1,Café\n".encode("latin1"), ", line 2: is not UTF-8 text (Latin-1, perhaps)"),
        (b"item_id,title\n1,So\0ap\n", ", line 2: holds a NUL byte"),
        (gzip.compress(PLAIN, mtime=0)[:-9], ": is gzip, but damaged or cut off"),
        (b'[{"item_id": 1}]', ", line 1: is JSON; export the titles as CSV or Parquet"),
        (b"PK\x03\x04", ": is a zip archive; unpack it and give the file of titles with data.titles=FILE"),
        (b"PAR1 and no more", ": is not readable Parquet"),
    ],
)
def test_what_cannot_be_read_is_refused_in_one_line(content: bytes, message: str, tmp_path: Path) -> None:
    assert message in refusal(tmp_path, content)


def test_parquet_with_lists_or_without_ids_is_refused(tmp_path: Path) -> None:
    pl.DataFrame({"item_id": [1], "title": [["a"]]}).write_parquet(tmp_path / "lists.parquet")
    with pytest.raises(UserError, match=r"'title' holds List\(String\)"):
        read_titles_file(tmp_path / "lists.parquet")
    pl.DataFrame({"item_id": ["1", None], "title": ["a", "b"]}).write_parquet(tmp_path / "null.parquet")
    with pytest.raises(UserError, match="line 2: 'item_id' is empty"):
        read_titles_file(tmp_path / "null.parquet")


def test_a_missing_file_is_refused_by_the_word_that_names_another(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape("no such file; give the right one with --titles FILE")):
        read_titles_file(tmp_path / "none.csv", "--titles FILE")


def test_of_an_id_that_stands_twice_the_first_title_counts(tmp_path: Path) -> None:
    rows = read_titles_file(written(tmp_path, "item_id,title\n2,\n1,a\n2,b\n1,c\n2,d\n"))
    assert list(first_titles(rows).iter_rows()) == [("1", "a"), ("2", "b")]


def test_a_path_is_relative_to_the_working_folder_and_folder_means_that_of_the_raw_file() -> None:
    cache = Path("cache")
    assert titles_path(DataConfig(name="x"), cache) is None
    assert titles_path(DataConfig(name="x", path="raw/x.txt", titles="t.csv"), cache) == Path("t.csv")
    assert titles_path(DataConfig(name="x", path="raw/x.txt", titles="~/t.csv"), cache) == Path("~/t.csv").expanduser()
    beside = DataConfig(name="x", path="raw/x.txt", titles="{folder}/t.csv")
    assert titles_path(beside, cache) == Path("raw/t.csv")
    assert titles_path(DataConfig(name="x", titles="{folder}/t.csv"), cache) == Path("cache/data/x/t.csv")


def test_only_a_file_beside_the_raw_file_may_be_missing(tmp_path: Path) -> None:
    beside = DataConfig(name="x", path=str(tmp_path / "x.txt"), titles="{folder}/t.csv")
    assert optional_titles_path(beside, tmp_path) is None
    written(tmp_path, PLAIN, "t.csv")
    assert optional_titles_path(beside, tmp_path) == tmp_path / "t.csv"
    assert optional_titles_path(DataConfig(name="x", titles="none.csv"), tmp_path) == Path("none.csv")


ids = st.text("abAZ01ä-_ ", min_size=1, max_size=5).filter(str.strip)
texts = st.text("ab Z\"',;|\té\n\u2028", max_size=12)


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(st.tuples(ids, texts), min_size=1, max_size=6),
    separator=st.sampled_from(",;|"),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
    end=st.sampled_from(["\n", "\r\n"]),
)
@example(rows=[("1", "a\nb,c\nd,e")], separator=",", quoting=csv.QUOTE_MINIMAL, end="\n")
@example(rows=[("1", '"')], separator=",", quoting=csv.QUOTE_MINIMAL, end="\n")
def test_a_written_table_is_read_exactly_or_a_line_is_named(
    rows: list[tuple[str, str]], separator: str, quoting: int, end: str, tmp_path: Path
) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=separator, quoting=quoting, lineterminator=end)  # type: ignore[arg-type]
    writer.writerows([("item_id", "title"), *rows])
    path = written(tmp_path, text.getvalue())
    expected = [(raw_id, " ".join(title.split())) for raw_id, title in rows]
    found = read_or_line(path)
    if isinstance(found, str):
        assert re.match(r", line \d+: a quote swallows \d+ lines that look like rows; ", found)
        assert any("\n" in title for _, title in rows)
    else:
        assert list(found.iter_rows()) == expected


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=80) | st.text(max_size=60).map(lambda text: f"item_id,title\n{text}".encode()))
def test_any_bytes_are_read_or_refused_in_one_line(content: bytes, tmp_path: Path) -> None:
    found = read_or_line(written(tmp_path, content))
    if not isinstance(found, str):
        assert found.columns == ["raw_id", "title"]
        assert found.null_count().sum_horizontal().item() == 0
