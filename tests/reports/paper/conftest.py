"""The cells of these tests."""

from __future__ import annotations

import pytest

from support.made_cells import make_cells
from tslrec.reports.paper.cells import CellResult


@pytest.fixture(scope="package")
def cells(tmp_path_factory: pytest.TempPathFactory) -> list[CellResult]:
    return make_cells(tmp_path_factory.mktemp("cells"))
