"""Comparisons are computed once: what is kept is what the bootstrap gives, and only of the same cells."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from support.made_cells import make_cell
from tslrec.evaluation.significance import Comparison
from tslrec.reports.paper import kept_comparisons
from tslrec.reports.paper.kept_comparisons import FILE, compared_cells


@pytest.fixture
def cells(tmp_path: Path) -> Path:
    for method in ("base", "tslrec"):
        for seed in (0, 1):
            make_cell(tmp_path / "results" / "cells", method=method, seed=seed)
    return tmp_path / "results" / "cells"


def comparison(cells: Path, metric: str = "NDCG@10") -> Comparison:
    """In a process that has read no kept comparison yet."""
    kept_comparisons.read.cache_clear()
    mine, theirs = (
        tuple(cells / f"beauty-sasrec-{method}-tuned-seed{seed}.json" for seed in (0, 1))
        for method in ("tslrec", "base")
    )
    return compared_cells(mine, theirs, "masked", metric)


def refuse(*_: object, **__: object) -> None:
    raise AssertionError("computed again")


def test_a_kept_comparison_is_the_computed_one(cells: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    computed = comparison(cells)
    monkeypatch.setattr(kept_comparisons, "compare", refuse)
    assert comparison(cells) == computed
    with pytest.raises(AssertionError, match="computed again"):
        comparison(cells, "HR@10")


def test_another_rank_of_one_user_is_another_comparison(cells: Path) -> None:
    before = comparison(cells)
    shutil.rmtree(cells)
    for seed in (0, 1):
        make_cell(cells, method="base", seed=seed)
        # Another seed's ranks under this one's name.
        other = make_cell(cells, method="tslrec", seed=seed + 7)
        for suffix in (".json", ".safetensors"):
            other.path.with_suffix(suffix).rename(cells / f"beauty-sasrec-tslrec-tuned-seed{seed}{suffix}")
    assert comparison(cells).gain != before.gain


@pytest.mark.parametrize("content", ["{", "[]", ""])
def test_a_damaged_file_is_made_again(cells: Path, content: str) -> None:
    computed = comparison(cells)
    path = cells.parent / FILE
    path.write_text(content)
    assert comparison(cells) == computed
    assert len(json.loads(path.read_text())) == 1


def test_the_projects_own_page_has_all_of_its_comparisons(monkeypatch: pytest.MonkeyPatch) -> None:
    from support.checkout import CHECKOUT
    from tslrec.reports.paper.cells import read_cells
    from tslrec.reports.paper.sections import SectionInputs, make_section, section_names

    results = CHECKOUT / "results"
    kept_comparisons.read.cache_clear()
    monkeypatch.setattr(kept_comparisons, "compare", refuse)
    inputs = SectionInputs(read_cells(results / "cells"), results, None)
    assert [make_section(name, inputs).key for name in section_names()] == list(section_names())
