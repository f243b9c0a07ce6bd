"""The checkpoints of one stage's training: verified folders, of which the newest that is whole is gone on with.

They lie beside the stage's artifact, `<label>-<key>.checkpoints/step-<N>/`, and go once it is finished. Like an
artifact each is written aside, gets its manifest last, is synced and renamed.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tslrec.artifacts import publish, read_manifest, verify
from tslrec.errors import UserError

STATE = "state"
KEPT = 2
"""So that one that turns out to be damaged has a predecessor."""


class Checkpoints:
    """The checkpoints below one folder.

    Args:
        folder: need not be there yet.
        tell: says a line to the person: which checkpoint is gone on with, which is passed over.

    Attributes:
        aside: where the next one is written, its state to `STATE` below.
    """

    def __init__(self, folder: Path, tell: Callable[[str], None]) -> None:
        self.folder = folder
        self.tell = tell
        self.aside = folder / ".partial"

    def begin(self) -> None:
        """Makes an empty place for the next one."""
        if self.aside.exists():
            shutil.rmtree(self.aside)
        self.aside.mkdir(parents=True)

    def publish(self, step: int, facts: dict[str, Any]) -> Path:
        """Gives what was written aside its manifest and its name, and removes all but the newest `KEPT`.

        Args:
            step: optimizer steps that are done.
            facts: what else the manifest says.
        """
        final = self.folder / f"step-{step:09d}"
        if final.exists():
            # Left by a run that found it damaged and has come here again.
            shutil.rmtree(final)
        publish(self.aside, final, {"key": final.name, "metrics": {}, "step": step, **facts})
        for old in self.all()[KEPT:]:
            shutil.rmtree(old)
        return final

    def all(self) -> list[Path]:
        """Newest first."""
        return sorted(self.folder.glob("step-*"), reverse=True)

    def newest(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest checkpoint whose files are those of its manifest, and the manifest."""
        for folder in self.all():
            try:
                manifest = read_manifest(folder)
                verify(folder, manifest)
            except UserError as error:
                self.tell(f"checkpoint passed over: {error}")
                continue
            return folder, manifest
        return None
