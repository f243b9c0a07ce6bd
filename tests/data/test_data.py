"""The public files give the paper's Table 1; a faulty file is refused in one line; training instances are exact."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.checkout import CHECKOUT
from support.interactions import make_interactions
from tslrec.data.ingest import ingest
from tslrec.data.statistics import format_row, table1_row
from tslrec.data.windows import all_prefixes, all_windows
from tslrec.settings.data import DataConfig
from tslrec.system.errors import UserError

DATA = CHECKOUT.parent / "shared" / "data"
TABLE_1 = {
    "beauty/beauty.txt": ("user_lines", "22,363 users, 12,101 items, 198,502 interactions, density 0.07%", "8.9"),
    "ml-1m/ml-1m.txt": ("pair_lines", "6,040 users, 3,416 items, 999,611 interactions, density 4.84%", "165.5"),
    "yelp/yelp.txt": ("user_lines", "30,431 users, 20,033 items, 316,354 interactions, density 0.05%", "10.4"),
}
NAMED = {"user_column": "user", "item_column": "item", "time_column": "time"}


def data_of(path: Path, target: str, **options: str) -> DataConfig:
    reader = {"_target_": f"tslrec.data.formats.{target}", **options}
    return DataConfig(name="own", title="Own", reader=reader, path=str(path))


@pytest.mark.parametrize("name", TABLE_1)
def test_a_public_file_gives_its_row_of_table_1(name: str, tmp_path: Path) -> None:
    if not (DATA / name).is_file():
        pytest.skip("the data sets are not beside the checkout")
    reader, sizes, length = TABLE_1[name]
    interactions = ingest(data_of(DATA / name, f"{reader}.read"), tmp_path)
    assert format_row("", table1_row(interactions)) == f": {sizes}, average length {length}"
    if name.startswith("beauty"):
        assert len(all_prefixes(interactions, 50)) == 131_413


@pytest.mark.parametrize(
    ("target", "content", "message"),
    [
        ("user_lines.read", b"", "is empty"),
        ("user_lines.read", b"1 2 3\n\x00\x01", "line 2.*NUL"),
        ("user_lines.read", b"1 2 3\n\xff\xfe\n", "line 2.*UTF-8"),
        ("user_lines.read", b"1 2 3\n4\n", "line 2.*without items"),
        ("user_lines.read", b"1 2 3\n1 4\n", "line 2.*line 1 already"),
        ("user_lines.read", b"1 2\n2 3\n", "no user has 3"),
        ("pair_lines.read", b"1 2\n1 2 3\n", r"line 2.*3 field"),
        ("tables.read_csv", b"user,item\n1,2\n", "no column 'time'"),
        ("tables.read_csv", b"user;item;time\n1;2;3\n", "no column 'user'.*separator"),
        ("tables.read_csv", b"user,item,time\n1,2,3\n1,3,soon\n", "line 3.*'soon'"),
        ("tables.read_csv", b"user,item,time\n1,2,3\n1,,4\n", "line 3.*'item' is empty"),
        ("tables.read_csv", b"user,item,time\n1,2,3\n1,3,4\n1,2,3\n", "line 4.*line 2 already"),
        ("tables.read_parquet", b"PAR1 and no more", "not readable Parquet"),
        ("recbole.read", b"user_id\titem_id\n1\t2\n", "line 1.*not typed"),
    ],
)
def test_a_faulty_file_is_refused_in_one_line(tmp_path: Path, target: str, content: bytes, message: str) -> None:
    path = tmp_path / "raw.file"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as raised:
        ingest(data_of(path, target, **(NAMED if target.startswith("tables") else {})), tmp_path)
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)


def test_interactions_are_sorted_by_time_and_ties_keep_file_order(tmp_path: Path) -> None:
    path = tmp_path / "raw.csv"
    path.write_text("user,item,time\na,x,5\na,y,3\na,z,3\na,w,1\n")
    interactions = ingest(data_of(path, "tables.read_csv", **NAMED), tmp_path)
    assert [interactions.ids.items[item] for item in interactions.sequence(0)] == ["w", "y", "z", "x"]


def test_the_k_core_filter_repeats_and_ids_follow_the_first_kept_row(tmp_path: Path) -> None:
    path = tmp_path / "raw.csv"
    # Item r has too few interactions; without it user c has too few, and without c item q has too few.
    rows = ["c,q,1", "c,x,1", "c,r,2", "b,z,5", "b,x,1", "b,y,2", "a,q,7", "a,y,1", "a,x,9", "a,z,3"]
    path.write_text("\n".join(["user,item,time", *rows]))
    data = data_of(path, "tables.read_csv", **NAMED)
    data.min_user_interactions, data.min_item_interactions = 3, 2
    interactions = ingest(data, tmp_path)
    assert interactions.ids.users == ("b", "a")
    assert interactions.ids.items == ("", "z", "x", "y")
    assert [interactions.sequence(user).tolist() for user in (0, 1)] == [[2, 3, 1], [3, 1, 2]]


@pytest.mark.parametrize("length", [3, 4, 9, 10, 11, 30, 57])
def test_windows_hold_every_training_target_once_with_at_least_half_its_context(length: int) -> None:
    interactions = make_interactions([list(range(1, length + 1)), [1, 2]])
    max_len, targets = 8, []
    windows = all_windows(interactions, max_len)
    for start, count, skipped in zip(windows.starts, windows.lengths, windows.skipped, strict=True):
        for position in range(skipped, count):
            targets.append(int(start + position + 1))
            assert position + 1 >= min(start + position + 1, max_len // 2) or start + position >= length
    prefixes = all_prefixes(interactions, max_len)
    assert sorted(targets) == sorted(prefixes.ends.tolist())
    assert windows.num_targets == len(prefixes)
