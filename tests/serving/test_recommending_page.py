"""The Python example of docs/recommending.md runs on a run as the quickstart leaves it."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import numpy as np
import pytest

from support.checkout import CHECKOUT

PAGE = CHECKOUT / "docs" / "recommending.md"


def test_the_example_runs(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    (tmp_path / "example.py").write_text(example, encoding="utf-8")
    (tmp_path / "artifacts").symlink_to(finished_run / "artifacts")
    monkeypatch.chdir(tmp_path)
    made = runpy.run_path("example.py")
    frame, scores_UI = made["frame"], made["scores_UI"]
    assert frame.columns == ["user", "item", "score", "rank"]
    assert frame["user"].to_list() == ["anna"] * 5 + ["ben"] * 5
    assert not {"item0012", "item0007", "item0021"} & set(frame["item"][:5])
    # The vectors give the scores of the lists.
    places = made["recommender"].catalogue.find(frame["item"]) - 1
    rows = np.repeat([0, 1], 5)
    np.testing.assert_allclose(frame["score"].to_numpy(), scores_UI[rows, places], rtol=1e-4, atol=1e-5)
    assert capsys.readouterr().out.count("shape: ") == 4
