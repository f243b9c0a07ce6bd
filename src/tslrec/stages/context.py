"""What a stage is given: everything that determines its result, and a folder to write into."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import lightning

    from tslrec.checkpoints import Checkpoints
    from tslrec.config import Config
    from tslrec.interactions import Interactions
    from tslrec.measuring import Meter


class MakeTrainer(Protocol):
    """Builds the Lightning trainer of a stage, with its progress bar, CSV logs, device and strategy in place."""

    def __call__(
        self,
        *,
        max_epochs: int,
        callbacks: Sequence[lightning.Callback] = (),
        llm: bool = False,
        gradient_clip: float | None = None,
    ) -> lightning.Trainer: ...


@dataclass(frozen=True)
class StageContext:
    """One run of one stage.

    Attributes:
        config: the resolved configuration, plain dataclasses.
        interactions: the data set.
        seed: this stage's own, derived from the run's; already set for Python, NumPy and torch.
        folder: where the first process of the job writes the stage's files; published as a whole once it has returned.
        inputs: the folder of each earlier stage's verified artifact, by stage name.
        make_trainer: see `MakeTrainer`; its trainers keep their checkpoints by themselves.
        checkpoints: what a stage that is no training keeps in their folder is there until all of it is done.
        meter: what the stage costs; goes on with what an earlier process had spent.
        tell: says a line to the person, in the first process of the job.
    """

    config: Config
    interactions: Interactions
    seed: int
    folder: Path
    inputs: Mapping[str, Path]
    make_trainer: MakeTrainer
    checkpoints: Checkpoints
    meter: Meter
    tell: Callable[[str], None] = print
