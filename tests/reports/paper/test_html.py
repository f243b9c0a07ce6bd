"""The report page: well-formed, whole by itself, with the numbers and where they are from; in a browser it fits."""

from __future__ import annotations

import re
import shutil
import subprocess
from html import escape
from pathlib import Path
from xml.etree import ElementTree

import pytest

from support.checkout import CHECKOUT
from support.made_cells import make_cells
from support.waiting import HANG_SECONDS
from tslrec.cli.main import main
from tslrec.reports.paper.sections import section_names
from tslrec.system.errors import UserError

BROWSER = next(
    (found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None
)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    make_cells(folder / "results" / "cells")
    for name in ("paper.json", "figure3.json", "bench/llm.json"):
        (folder / "results" / name).parent.mkdir(exist_ok=True)
        shutil.copy(CHECKOUT / "results" / name, folder / "results" / name)
    main(["page", "--results", str(folder / "results"), "--output", str(folder / "report.html")])
    return folder / "report.html"


def root(page: Path) -> ElementTree.Element:
    return ElementTree.fromstring(page.read_text(encoding="utf-8").removeprefix("<!DOCTYPE html>"))


def test_it_is_well_formed_with_every_section_once(page: Path) -> None:
    ids = [element.get("id") for element in root(page).iter() if element.get("id")]
    assert [name for name in ids if name in section_names()] == list(section_names())
    assert len(ids) == len(set(ids))


def test_it_refers_to_nothing_outside(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    ids = {element.get("id") for element in root(page).iter()}
    for element in root(page).iter():
        assert element.tag not in ("script", "img", "iframe", "object", "embed")
        assert element.get("src") is None
        if (target := element.get("href")) is not None and element.tag != "link":
            assert target.removeprefix("#") in ids, target
    assert not re.search(r"https?:|//[a-z]|@import|url\(", text)


def test_it_holds_the_numbers_and_their_origin(page: Path) -> None:
    fields = {"".join(field.itertext()): field.get("title") or "" for field in root(page).iter("td")}
    tooltip = next(title for text, title in fields.items() if re.fullmatch(r"\.\d{4} ± \.\d{4}", text))
    assert re.search(r"seed 0: 0\.\d+, seed 1: 0\.\d+\nbeauty-sasrec-\w+-tuned-seed0\n", tooltip)
    assert "python train.py data=beauty model=sasrec method=base preset=tuned seed=1" in page.read_text()
    titles = ["".join(title.itertext()) for title in root(page).iter("title")]
    assert any(re.match(r"0–79, TSLRec: 0\.\d{4} \(", title) and "tslrec-tuned-seed1" in title for title in titles)


def test_what_comes_from_data_is_escaped(page: Path) -> None:
    assert any("".join(field.itertext()) == "<b>" for field in root(page).iter("td"))


def test_every_chart_has_a_mark_for_every_value(page: Path) -> None:
    charts = list(root(page).iter("svg"))
    assert len(charts) == 10
    for chart in charts:
        marks = [group for group in chart.iter("g") if group.find("title") is not None]
        assert len(marks) >= 3
        for bar in (bar for group in marks for bar in group.iter("rect")):
            assert float(bar.get("height", "")) >= 0


def test_an_empty_folder_gives_a_page_that_says_so(tmp_path: Path) -> None:
    shutil.copy(CHECKOUT / "results" / "paper.json", tmp_path)
    main(["page", "--results", str(tmp_path), "--output", str(tmp_path / "report.html")])
    assert "no cell yet" in (tmp_path / "report.html").read_text()


def test_a_place_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    shutil.copy(CHECKOUT / "results" / "paper.json", tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(["page", "--results", str(tmp_path), "--output", str(tmp_path / "none" / "report.html")])
    assert caught.value.code == 2


def test_a_cell_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    from tslrec.reports.paper.cells import read_cells

    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(UserError, match=r"broken.json: not a finished cell \('cell' is missing\)"):
        read_cells(tmp_path)


@pytest.mark.skipif(BROWSER is None, reason="no Chromium on this machine")
@pytest.mark.parametrize("width", [1280, 400])
def test_in_a_browser_it_fits_and_nothing_complains(page: Path, tmp_path: Path, width: int) -> None:
    # In a frame, since the browser's own windows are at least 500 pixels wide.
    outer = tmp_path / "outer.html"
    tell = "document.title = [d.scrollWidth, d.clientWidth, frame.contentWindow.innerWidth].join(' ')"
    outer.write_text(
        f'<!DOCTYPE html><iframe id="frame" style="width: {width}px; height: 800px; border: 0" '
        f'srcdoc="{escape(page.read_text(encoding="utf-8"))}"></iframe>'
        f"<script>onload = () => {{ const d = frame.contentDocument.documentElement; {tell} }}</script>",
        encoding="utf-8",
    )
    command = [str(BROWSER), "--headless=new", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1400,900", "--dump-dom", str(outer)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=HANG_SECONDS, check=True)
    found = re.search(r"<title>(\d+) (\d+) (\d+)</title>", run.stdout)
    assert found is not None
    needed, offered, whole = map(int, found.groups())
    assert whole == width
    assert needed <= offered
    assert "CONSOLE" not in run.stderr
