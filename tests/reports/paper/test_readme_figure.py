"""The README's bar chart: the committed file is that of the committed cells, and its bars are their means."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from xml.etree import ElementTree

import pytest

from support.checkout import CHECKOUT
from support.made_cells import make_cell
from tslrec.cli.main import main
from tslrec.reports.paper.cells import CellResult, read_cells
from tslrec.reports.paper.readme_figure import readme_figure
from tslrec.reports.paper.svg import PLOT_HEIGHT, TOP

COMMITTED = CHECKOUT / "docs" / "figures" / "beauty.svg"
SVG = "{http://www.w3.org/2000/svg}"
PROTOCOLS = {"History masked": "masked", "History not masked": "unmasked"}
BACKBONES = {"Caser": "caser", "GRU4Rec": "gru4rec", "SASRec": "sasrec", "FMLP-Rec": "fmlp"}
METHODS = {"Base": "base", "CI": "ci", "TSLRec": "tslrec"}


@pytest.fixture(scope="module")
def cells() -> list[CellResult]:
    return read_cells(CHECKOUT / "results" / "cells")


def bars(picture: str) -> dict[tuple[str, str, str], tuple[float, str]]:
    """The value that each bar's height stands for, and the number in it, by protocol, backbone and method."""
    found = {}
    panels = [
        group
        for group in ElementTree.fromstring(picture).iter(f"{SVG}g")
        if any(text.get("class") == "panel" for text in group.findall(f"{SVG}text"))
    ]
    for panel in panels:
        title = next(text.text or "" for text in panel.findall(f"{SVG}text") if text.get("class") == "panel")
        top = max(float(t.text or "") for t in panel.findall(f"{SVG}text") if t.get("class") == "tick" and is_number(t))
        counts = [text.text or "" for text in panel.findall(f"{SVG}text") if text.get("class") == "seeds"]
        drawn = [group for group in panel.findall(f"{SVG}g") if group.find(f"{SVG}rect") is not None]
        for group, count in zip(drawn, counts, strict=True):
            rectangle = group.find(f"{SVG}rect")
            assert rectangle is not None
            backbone, method = (group.findtext(f"{SVG}title") or "").split(":")[0].split(", ")
            height = float(rectangle.get("height", ""))
            assert float(rectangle.get("y", "")) + height == pytest.approx(TOP + PLOT_HEIGHT, abs=0.11)
            key = (PROTOCOLS[title], BACKBONES[backbone], METHODS[method])
            found[key] = height / PLOT_HEIGHT * top, count
    return found


def is_number(text: ElementTree.Element) -> bool:
    return text.get("text-anchor") == "end"


def test_the_committed_picture_is_that_of_the_committed_cells(cells: list[CellResult]) -> None:
    assert readme_figure(cells) == COMMITTED.read_text(encoding="utf-8"), "run `tslrec figure` and commit the file"


def test_bars_are_the_means_of_the_cells_and_missing_methods_are_absent(cells: list[CellResult]) -> None:
    values: dict[tuple[str, str, str], list[float]] = {}
    for cell in cells:
        content = json.loads(cell.path.read_text())
        plain = content["variant"] is None and content["model"] == content["source_model"]
        if plain and (content["data"], content["preset"]) == ("beauty", "tuned"):
            for protocol in ("masked", "unmasked"):
                key = (protocol, content["model"], content["method"])
                values.setdefault(key, []).append(content["metrics"][f"test/{protocol}/NDCG@10"])
    drawn = {(model, method) for model in BACKBONES.values() for method in METHODS.values()}
    expected = {key: each for key, each in values.items() if key[1:] in drawn}
    found = bars(COMMITTED.read_text(encoding="utf-8"))
    assert found.keys() == expected.keys()
    for key, (value, count) in found.items():
        # A tenth of a pixel, of 200 for the whole axis.
        assert value == pytest.approx(statistics.fmean(expected[key]), abs=0.0001)
        assert count == str(len(expected[key]))


def test_variants_other_presets_and_other_data_are_left_out(tmp_path: Path) -> None:
    plain = [make_cell(tmp_path, method="base", seed=seed) for seed in (0, 1)]
    others = [
        make_cell(tmp_path, method="base", seed=0, variant="wide"),
        make_cell(tmp_path, method="ci", seed=0, source="fmlp"),
        make_cell(tmp_path, method="ci", seed=0, preset="paper"),
        make_cell(tmp_path, method="ci", seed=0, data="yelp"),
        make_cell(tmp_path, method="ablation_own_embeddings", seed=0),
    ]
    assert readme_figure([*plain, *others]) == readme_figure(plain)


def test_without_cells_it_ends_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["figure", "--results", str(tmp_path), "--output", str(tmp_path / "out.svg")])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "no finished cell of base, ci, tslrec on beauty" in line
    assert not (tmp_path / "out.svg").exists()


def test_a_place_that_cannot_be_written_ends_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_cell(tmp_path / "cells", method="base", seed=0)
    with pytest.raises(SystemExit) as ended:
        main(["figure", "--results", str(tmp_path), "--output", str(tmp_path / "none" / "out.svg")])
    assert ended.value.code == 2
    assert "name a file that can be written" in capsys.readouterr().err
