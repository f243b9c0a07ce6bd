"""What a stage is given: everything that determines its result, and a folder to write into."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import lightning

    from tslrec.config import Config
    from tslrec.data.interactions import Interactions
    from tslrec.stages.members import Member
    from tslrec.system.meter import Meter
    from tslrec.training.checkpoints import Checkpoints


@dataclass(frozen=True)
class Earlier:
    """The run that a run continues.

    Attributes:
        folders: the folder of each of its stages' verified artifacts, by stage name.
        interactions: its data set.
        keeps_items: whether the embeddings of its items must stay as they are, bit for bit, because the results of
            later stages that are carried over were computed from them.
    """

    folders: Mapping[str, Path]
    interactions: Interactions
    keeps_items: bool = False


@dataclass(frozen=True)
class StageContext:
    """One run of one stage.

    Attributes:
        config: the resolved configuration, plain dataclasses.
        interactions: the data set.
        seed: the stage's own seed, derived from the run's; Python, NumPy and torch are seeded with it already.
        folder: where rank 0 writes the stage's files. The folder is published as a whole after the stage has returned.
        inputs: the folder of each earlier stage's verified artifact, by stage name.
        make_trainer: builds a Lightning trainer with the stage's device, strategy, logs and checkpoints: an instance of
            `tslrec.training.trainer.StageTrainers`, whose `__call__` names the arguments.
        checkpoints: folder of the stage's checkpoints. A stage that trains nothing may keep partial results in it; the
            folder is removed once the stage has finished.
        meter: wall time and peak memory of the stage, including those of interrupted attempts that it resumes.
        earlier: the run that is continued; None of a run that starts anew.
        members: the recommenders of the other runs that `Config.members` names, in that order, for a stage that reads
            `members`.
    """

    config: Config
    interactions: Interactions
    seed: int
    folder: Path
    inputs: Mapping[str, Path]
    make_trainer: Callable[..., lightning.Trainer]
    checkpoints: Checkpoints
    meter: Meter
    earlier: Earlier | None = None
    members: tuple[Member, ...] = ()
