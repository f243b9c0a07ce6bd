"""The histories of these tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.table_recommender import make_histories


@pytest.fixture
def histories(tmp_path: Path) -> Path:
    """A file of histories with a row group for each ten users."""
    path = tmp_path / "histories.parquet"
    make_histories().write_parquet(path, row_group_size=10)
    return path
