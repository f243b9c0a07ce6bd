"""Which runs a sweep has."""

from __future__ import annotations

from pathlib import Path

from tslrec.pipeline.sweeps.record import Sweep

PROGRAM = Path("train.py")


def test_a_command_line_that_occurs_twice_is_one_run(tmp_path: Path) -> None:
    given = [["method=base", "seed=0"], ["method=base", "seed=1"], ["method=base", "seed=0"]]
    sweep = Sweep.of(tmp_path, PROGRAM, given)
    assert sweep.cells == (("method=base", "seed=0"), ("method=base", "seed=1"))
    assert [sweep.number_of(words) for words in given] == [0, 1, 0]
    assert sweep.folder == Sweep.of(tmp_path, PROGRAM, given[:2]).folder
    sweep.write()
    assert Sweep.read(sweep.folder).cells == sweep.cells
    assert len(sweep.status()) == 2
