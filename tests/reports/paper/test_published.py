"""The paper's numbers in `results/paper.json` are those of its text."""

from __future__ import annotations

import json
import re

import pytest

from support.checkout import CHECKOUT

TEXT = CHECKOUT.parent / "shared" / "paper" / "tslrec.txt"
DATA = ("beauty", "ml1m", "yelp")
"""The paper's data sets in the order of the columns."""
LABELS = {"pod": "POD", "p5": "P5", "llamarec": "LlamaRec", "e4srec": "E4SRec"}
MODELS = {"gru4rec": "GRU4Rec", "caser": "Caser", "sasrec": "SASRec", "fmlp": "FMLP-Rec"}
VARIANTS = {"base": "+Base", "ci": "+CI", "tslrec": "+TSLRec"}


def rows_of_the_text() -> list[tuple[str, list[float]]]:
    """The lines of Table 2: the words before the numbers, and the twelve numbers."""
    lines = TEXT.read_text(encoding="utf-8").splitlines()
    begin = next(number for number, line in enumerate(lines) if line.startswith("Table 2."))
    found = []
    for line in lines[begin:]:
        # Of a number in bold the text has the plain one first, then its markup.
        numbers = [float(number[0]) for word in line.split() if (number := re.match(r"\d\.\d{4}", word))]
        if len(numbers) == 12:
            found.append((" ".join(word for word in line.split() if not word[0].isdigit()), numbers))
    return found


@pytest.mark.skipif(not TEXT.is_file(), reason="the paper's text is not beside the checkout")
def test_table_2_is_that_of_the_paper() -> None:
    published = json.loads((CHECKOUT / "results" / "paper.json").read_text(encoding="utf-8"))["table2"]
    rows = rows_of_the_text()
    assert len(rows) == 16
    model = ""
    expected = {}
    for label, numbers in rows:
        first, _, last = label.rpartition(" ")
        model = first or model
        for place, data in enumerate(DATA):
            key = data, (last if last in LABELS.values() else f"{model} {last}")
            expected[key] = numbers[4 * place : 4 * place + 4]
    found = {
        (row["data"], LABELS.get(row["method"]) or f"{MODELS[row['model']]} {VARIANTS[row['method']]}"): row["values"]
        for row in published
    }
    assert found == expected
