"""Recommenders of other runs that a stage reads: the members of an ensemble.

A member is a run of its own: the same command line with some words changed. The pipeline runs its stages first, or
reuses their results.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tslrec.config import Config


@dataclass(frozen=True)
class Member:
    """A finished recommender, and all that is needed to rebuild it (`tslrec.stages.restored.restore_member`).

    Attributes:
        words: what its command line has otherwise than the run's, as `members` states it: `model=fmlp seed=1`.
        config: its configuration.
        stage: its last stage, whose result is the recommender.
        folder: that stage's verified artifact.
        inputs: the artifacts of what that stage read, by name, as `StageContext.inputs` has them.
        members: those of the member itself, if it is an ensemble.
    """

    words: str
    config: Config
    stage: str
    folder: Path
    inputs: Mapping[str, Path]
    members: tuple[Member, ...] = ()
