"""The paper's own numbers: `results/paper.json`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tslrec.evaluation.protocols import METRICS
from tslrec.system.errors import UserError

if TYPE_CHECKING:
    from tslrec.reports.paper.seed_rows import Row

PRINTED = 5e-5
"""The rounding error of a number printed with four decimals."""

PAPER = "the paper's own figures, results/paper.json"
"""The source that tooltips name for these numbers."""


@dataclass(frozen=True)
class PublishedResults:
    """The paper's own numbers.

    Attributes:
        source: the paper and the setting of its numbers, as a sentence.
        table1: statistics of each data set, by its name.
        table2: HR@5, HR@10, NDCG@5 and NDCG@10, by data set, backbone (None: the method has none) and method.
    """

    source: str
    table1: Mapping[str, Mapping[str, float]]
    table2: Mapping[tuple[str, str | None, str], Sequence[float]]

    @classmethod
    def read(cls, path: Path) -> PublishedResults:
        """Reads the file.

        Raises:
            UserError: if it cannot be read.
        """
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            table2 = {(each["data"], each["model"], each["method"]): each["values"] for each in content["table2"]}
            return cls(content["source"], {each["data"]: each for each in content["table1"]}, table2)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(f"{path}: not the paper's figures ({error!r}); restore it from the repository") from error

    def row(self, row: Row) -> Sequence[float] | None:
        """The paper's HR@5, HR@10, NDCG@5 and NDCG@10 for one of our rows; None: the paper has no such row.

        A method whose language model recommends has one row a data set, beside which every row of ours stands.
        """
        own = self.table2.get((row.data_name, None, row.method_name))
        if own is None and row.is_plain:
            return self.table2.get((row.data_name, row.model_name, row.method_name))
        return own

    def gain(self, row: Row, rival: Row, metric: str) -> float | None:
        """The paper's relative gain of a method over a rival on our data set and backbone; None: it has no such row.

        Args:
            row: our row of the method.
            rival: our row of the rival.
            metric: the metric's name, such as `NDCG@10`.
        """
        ours, theirs = (self.table2.get((each.data_name, each.model_name, each.method_name)) for each in (row, rival))
        if ours is None or theirs is None:
            return None
        place = METRICS.index(metric)
        return ours[place] / theirs[place] - 1
