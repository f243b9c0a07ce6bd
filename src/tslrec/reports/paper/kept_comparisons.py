"""Comparisons that were computed before: a bootstrap takes a second, and the page needs more than a hundred.

They are kept in `results/comparisons.json` under a digest of all that determines them: the arrays of the cells, the
metric, and the code of the tests. So a kept one is what the bootstrap would give again, to the last digit.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from tslrec.evaluation import significance
from tslrec.evaluation.significance import Comparison, compare
from tslrec.reports.paper.cells import CellResult, read_cell
from tslrec.reports.paper.seed_rows import Row
from tslrec.system.files import write_json

FILE = "comparisons.json"
"""In the folder of results, beside `cells/`."""


def compared_cells(mine: tuple[Path, ...], theirs: tuple[Path, ...], protocol: str, metric: str) -> Comparison:
    """Compares cells by a metric of each user, or finds the comparison among the kept ones.

    Args:
        mine: JSON files of a row's cells, by rising seed.
        theirs: those of the rival, of the same seeds.
        protocol: the ranking protocol.
        metric: such as `NDCG@10`.

    Raises:
        UserError: if a cell cannot be read.
    """
    cells = [[read_cell(path) for path in paths] for paths in (mine, theirs)]
    path = mine[0].parent.parent / FILE
    key = digest(cells, protocol, metric)
    kept = read(path)
    if key not in kept:
        name, k = metric.split("@")
        rows = [Row(tuple(each)) for each in cells]
        method_SU, rival_SU = (row.gains(protocol, name, int(k), row.seeds) for row in rows)
        kept[key] = asdict(compare(method_SU, rival_SU))
        # A folder of results that may only be read is a reason to compute anew, not to fail.
        if os.access(path.parent, os.W_OK):
            write_json(path, dict(sorted(kept.items())))
    return Comparison(**kept[key])


def digest(cells: Sequence[Sequence[CellResult]], protocol: str, metric: str) -> str:
    """Stands for all that determines a comparison of two rows' cells."""
    arrays = [[cell.content["arrays"]["sha256"] for cell in row] for row in cells]
    state = hashlib.sha256(json.dumps([arrays, protocol, metric]).encode())
    state.update(Path(significance.__file__).read_bytes())
    return state.hexdigest()


@cache
def read(path: Path) -> dict[str, dict[str, Any]]:
    """The kept comparisons of a file, by their digests; none where it is missing or damaged: all can be made again."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}
