"""The benchmark of the start: a figure per command, and none of a command that ends otherwise."""

from __future__ import annotations

import re

import pytest

from startup import COMMANDS, FIRST, main, median_seconds


@pytest.mark.slow
def test_each_command_has_a_figure_in_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--runs", "1"])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [*COMMANDS, FIRST]
    assert all(re.fullmatch(r"startup_\w+ \d+\.\d{3} s", line) for line in lines)


def test_a_command_with_another_exit_code_is_refused() -> None:
    with pytest.raises(RuntimeError, match="exit code 3 instead of 0"):
        median_seconds(["-c", "raise SystemExit(3)"], 0, runs=1)
