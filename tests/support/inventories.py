"""What a folder of artifacts holds."""

from __future__ import annotations

from pathlib import Path

from tslrec.pipeline.inventory import State, inventory
from tslrec.pipeline.sweeps.record import Sweep, sweeps_at


def states(root: Path, *, check_files: bool = False) -> dict[str, State]:
    """The state of each result in an artifacts folder, by the first word of the result's name."""
    return {each.name.split("-")[0]: each.state for each in inventory(root, check_files=check_files)}


def sweep_of(folder: Path) -> Sweep:
    """The only sweep in the artifacts of a working directory."""
    (sweep,) = sweeps_at(folder / "artifacts")
    return sweep
