"""The checkpoints of one stage's training: training resumes from the newest intact one.

They lie beside the stage's artifact, in `<label>-<key>.checkpoints/step-<N>/`, and are deleted once the artifact is
finished. Like an artifact, a checkpoint is written under a temporary name, gets its manifest last, and is synced to
disk and renamed.
"""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import Any

from tslrec.system.errors import UserError
from tslrec.system.manifests import publish, read_manifest, verify
from tslrec.system.shares import SHARD

log = logging.getLogger(__name__)


STATE = "state"
"""The part of a checkpoint that holds the training state."""
KEPT = 2
"""Number of checkpoints that are kept: if the newest is damaged, the one before is used."""


class Checkpoints:
    """The checkpoints in one folder.

    Args:
        folder: need not exist yet.

    Attributes:
        aside: the temporary folder in which the next checkpoint is written, its state in `STATE` below.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.aside = folder / ".partial"

    def begin(self) -> None:
        """Makes an empty temporary folder for the next checkpoint."""
        if self.aside.exists():
            shutil.rmtree(self.aside)
        self.aside.mkdir(parents=True)

    def publish(self, step: int, facts: dict[str, Any]) -> Path:
        """Gives the temporary folder its manifest and its final name, and keeps the `KEPT` last ones up to this step.

        Checkpoints of later steps are removed, too: this training did not begin with them, so they were damaged.

        Args:
            step: number of finished optimizer steps.
            facts: further entries of the manifest.

        Returns:
            The checkpoint's folder.
        """
        final = self.folder / f"step-{step:09d}"
        if final.exists():
            # A run that found this checkpoint damaged has reached the same step again.
            shutil.rmtree(final)
        publish(self.aside, final, {"key": final.name, "metrics": {}, "step": step, **facts})
        older = [each for each in self.all() if each.name < final.name]
        for each in set(self.all()) - {final, *older[: KEPT - 1]}:
            shutil.rmtree(each)
        return final

    def all(self) -> list[Path]:
        """The folders of all checkpoints, newest first."""
        return sorted(self.folder.glob("step-*"), reverse=True)

    @property
    def future(self) -> str:
        """What the same command does after a stop, for messages."""
        if any(self.folder.glob(f"{SHARD}*")):
            return "computes the shards that are missing"
        return "goes on from its last checkpoint" if self.all() else "starts it anew"

    def newest(self) -> tuple[Path, dict[str, Any]] | None:
        """The newest checkpoint whose files match its manifest, and that manifest; None if there is none."""
        for folder in self.all():
            try:
                manifest = read_manifest(folder)
                verify(folder, manifest)
            except UserError as error:
                log.warning(f"checkpoint passed over: {error}")
                continue
            return folder, manifest
        return None
