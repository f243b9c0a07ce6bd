"""A chart of rows puts each value and its interval in its place; legends take as many lines as their names need."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree

import pytest

from tslrec.reports.paper.document import Chart, Point, Series
from tslrec.reports.paper.svg import draw, legend_lines
from tslrec.reports.paper.svg_rows import WIDTH, draw_rows

LABELS = ["A sentence that says what was done, " * 4, "EASE", "Base"]
SERIES = [
    Series("masked", [Point(5.0, 2.0, 8.0, "", ()), Point(-4.0, None, None, "", ()), None]),
    Series("not masked", [Point(10.0, 5.0, 15.0, "", ()), None, Point(0.0, -1.0, 1.0, "", ())]),
]


def parsed(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)


def test_values_lie_on_the_axis_where_they_belong() -> None:
    picture = parsed(draw_rows(Chart("Gain", "gain, %", LABELS, SERIES, kind="rows", number="+.1f")))
    ticks = {
        float(each.text or ""): float(each.get("x", ""))
        for each in picture.iter("text")
        if each.get("text-anchor") == "middle" and re.fullmatch(r"-?\d+", each.text or "")
    }
    scale = (ticks[10.0] - ticks[0.0]) / 10
    dots = {
        (each.find("title").text or "").split(":")[-1].split()[0]: float(each.find("circle").get("cx"))  # type: ignore[union-attr, arg-type]
        for each in picture.iter("g")
    }
    assert dots == {
        text: pytest.approx(ticks[0.0] + scale * value, abs=0.11)
        for text, value in (("+5.0", 5), ("-4.0", -4), ("+10.0", 10), ("+0.0", 0))
    }
    ends = [float(x) for each in picture.iter("path") for x in re.findall(r"M([\d.]+)", each.get("d", ""))[:2]]
    assert ends[:2] == [pytest.approx(ticks[0.0] + 2 * scale, abs=0.11)] * 2
    assert len(list(picture.iter("path"))) == 3
    assert [each.get("class") for each in picture.iter("line")].count("zero") == 1


def test_a_long_label_is_squeezed_into_its_place() -> None:
    picture = parsed(draw_rows(Chart("Gain", "gain, %", LABELS, SERIES, kind="rows")))
    squeezed = [each for each in picture.iter("text") if each.get("textLength")]
    assert ["".join(each.itertext()).strip() for each in squeezed] == [LABELS[0].strip()]
    assert float(squeezed[0].get("textLength", "")) < WIDTH


def test_names_that_do_not_fit_side_by_side_take_further_lines() -> None:
    def chart(*names: str) -> Chart:
        return Chart("Gain", "gain", ["a"], [Series(name, [Point(1.0, None, None, "", ())]) for name in names])

    assert legend_lines(chart("Base", "CI", "TSLRec"), 490) == [[0, 1, 2]]
    assert legend_lines(chart("Base"), 490) == [[]]
    long = chart("a" * 50, "b" * 20, "c" * 40, "d" * 10)
    assert legend_lines(long, 490) == [[0], [1, 2], [3]]
    few, many = (parsed(draw(each)).get("viewBox", "").split()[-1] for each in (chart("a", "b"), long))
    assert float(many) - float(few) == pytest.approx(2 * 15)
