"""What is measured: models, sizes, data, and how long. Read by every environment, so it imports nothing."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

SIZES: dict[str, dict[str, Any]] = {
    "sasrec": {"num_layers": 2, "num_heads": 2, "inner_size": 256},
    "fmlp": {"num_layers": 2},
    "caser": {"num_vertical": 4, "num_horizontal": 8, "reg_weight": 1e-4},
    "gru4rec": {"gru_size": 128, "num_layers": 1},
    "lru": {"num_layers": 2},
}
"""Beside the width: RecBole's own defaults, the authors' for FMLP-Rec and LRURec. Caser has its user embedding, as in
RecBole."""

QUICK_BATCHES = 2
KINDS = ("whole", "again", "quick")
"""Of effort: see `Case.effort`."""


@dataclass(frozen=True)
class Effort:
    """How much of a case one side runs.

    Attributes:
        warm_up: batches that are run and not counted.
        batches: batches that are timed.
        evaluations: full evaluations; the median is reported.
        whole_epoch: whether an epoch is run from end to end as a control of the scaled figure.
        why_no_epoch: the reason where it is not.
    """

    warm_up: int = 5
    batches: int = 30
    evaluations: int = 3
    whole_epoch: bool = True
    why_no_epoch: str = ""


@dataclass(frozen=True)
class Case:
    """One line of the comparison; everything but the efforts holds for all sides.

    Attributes:
        name: prefix of its figures.
        model: a key of `SIZES`.
        data: `beauty`, `ml1m`, or `growth_N` for the generated market of N times the base size.
        hidden_size: width of the item table.
        tslrec: what the project runs.
        recbole: what RecBole runs; None where only the project is measured.
        max_len: history that a model sees.
        dropout: of every kind that the model has.
        batch_size: training targets of a step (of ours on average, since all positions of a sequence train at once).
        learning_rate: Adam's.
        recbole_eval_batch_size: users that RecBole scores at a time. Its default of 4,096 costs it half as much
            processor time again as 256 or 1,024 do, and more memory.
        rectools: what RecTools runs; None where it has no such model, or is not measured.
    """

    name: str
    model: str
    data: str
    hidden_size: int
    tslrec: Effort
    recbole: Effort | None
    max_len: int = 50
    dropout: float = 0.2
    batch_size: int = 1024
    learning_rate: float = 1e-3
    recbole_eval_batch_size: int = 256
    rectools: Effort | None = None

    def efforts(self) -> dict[str, Effort | None]:
        """The effort of each side, by the field's name."""
        return {"tslrec": self.tslrec, "recbole": self.recbole, "rectools": self.rectools}

    def effort(self, side: str, kind: str) -> Effort:
        """What a side runs: `whole`, `again` (later rounds: batches and one evaluation) or `quick` (to see it run)."""
        effort = self.efforts()[library_of(side)]
        assert effort is not None
        if kind == "quick":
            return Effort(1, QUICK_BATCHES, 1, whole_epoch=False, why_no_epoch="smoke test")
        if kind == "again":
            return replace(effort, evaluations=1, whole_epoch=False, why_no_epoch="a later round")
        return effort


def library_of(side: str) -> str:
    """The library that a side runs: `recbole_anomaly` is RecBole too."""
    return side.partition("_")[0]


MINUTES = "an epoch would take RecBole {} minutes"
SHORT = Effort(warm_up=3, batches=20, evaluations=1, whole_epoch=False, why_no_epoch="growth is read from batches")

CASES: tuple[Case, ...] = (
    Case("sasrec_d64_beauty", "sasrec", "beauty", 64, Effort(), Effort(2, 20, 1), rectools=Effort(2, 10, 1)),
    Case("fmlp_d64_beauty", "fmlp", "beauty", 64, Effort(), Effort(2, 15, 1)),
    Case("caser_d64_beauty", "caser", "beauty", 64, Effort(), Effort(1, 5, 1, False, MINUTES.format("over 20"))),
    Case("gru4rec_d64_beauty", "gru4rec", "beauty", 64, Effort(), Effort(3, 30, 2)),
    Case(
        "sasrec_d256_beauty",
        "sasrec",
        "beauty",
        256,
        Effort(),
        Effort(1, 6, 1, False, MINUTES.format("over 20")),
        rectools=Effort(1, 6, 1, False, "an epoch would take RecTools several minutes"),
    ),
    Case(
        "sasrec_d64_ml1m",
        "sasrec",
        "ml1m",
        64,
        Effort(),
        Effort(2, 20, 1, False, MINUTES.format("over 20")),
        rectools=Effort(2, 20, 1),
    ),
    *(Case(f"growth_{scale}x", "sasrec", f"growth_{scale}", 64, SHORT, None) for scale in (1, 4, 16)),
)
