"""The benchmark beside other libraries: its generated data, its figures, and that our side runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from peer_case import History, read_histories
from peers import ITEMS, USERS, figures, generated, main
from tslrec.system.errors import UserError


def test_the_generated_data_have_beautys_size() -> None:
    lines = generated()
    lengths = sorted(len(line) - 1 for line in lines)
    assert len(lines) == USERS
    assert {item for _, *items in lines for item in items} == set(range(1, ITEMS + 1))
    # Beauty's quartiles.
    assert [lengths[0], lengths[USERS // 4], lengths[USERS // 2], lengths[3 * USERS // 4]] == [5, 5, 6, 9]


def test_every_user_asks_with_all_but_the_last_item(tmp_path: Path) -> None:
    (tmp_path / "raw.txt").write_text("7 3 1 2\n9 4 5\n")
    assert read_histories(tmp_path / "raw.txt") == [History("7", ["3", "1"]), History("9", ["4"])]


def test_a_ratio_is_taken_within_a_round() -> None:
    rounds = {
        "tslrec": [{"users": 100, "seconds": seconds} for seconds in (1.0, 10.0, 2.0)],
        "recbole": [{"users": 100, "seconds": seconds} for seconds in (5.0, 60.0, 8.0)],
    }
    assert figures(rounds) == [
        ("peers_tslrec", 50.0, "users/s"),
        ("peers_recbole", 12.5, "users/s"),
        ("peers_recbole_ratio", 5.0, "x"),
    ]


def test_a_missing_environment_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no environment of rectools; run make bench-peers"):
        main(["--side", "rectools", "--rectools", str(tmp_path / "python")])


@pytest.mark.slow
def test_our_side_runs(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--quick", "--side", "tslrec", "--threads", "1"])
    name, value, unit = capsys.readouterr().out.splitlines()[-1].split()
    assert (name, unit) == ("peers_tslrec", "users/s")
    assert float(value) > 0
