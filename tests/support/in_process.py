"""Runs what `train.py` runs in the process of the test, which saves the time of its imports."""

from __future__ import annotations

import io
import json
import os
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from hydra import compose, initialize_config_dir

from support.checkout import CHECKOUT
from support.runs import SMALL
from support.signal_handlers import handlers_put_back
from tslrec.cli.train import run
from tslrec.pipeline.composition import register_schema
from tslrec.system.files import describe
from tslrec.system.manifests import MANIFEST

RUN = ["method=tslrec", *SMALL, "training.max_epochs=1"]
"""Overrides of a run of all five stages that takes a few seconds."""


@dataclass(frozen=True)
class Ended:
    """How a run ended: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def refusal(self) -> str:
        """The one line with which a run ended that a person can put right."""
        assert self.code == 2, self.err
        (line,) = self.err.strip().splitlines()
        assert line.startswith("error: ")
        return line


def train_here(*overrides: str, folder: Path) -> Ended:
    """Runs what `train.py` runs, with artifacts and cache in a folder.

    An error that is no `UserError` is a defect, and is raised with its traceback.
    """
    register_schema()
    arguments = [*overrides, f"artifacts={folder / 'artifacts'}", f"cache={folder / 'cache'}"]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        initialize_config_dir(str(CHECKOUT / "configs"), version_base="1.3"),
        # The run writes the name of its job into the environment.
        patch.dict(os.environ),
        handlers_put_back(),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            run(compose("train", overrides=arguments), arguments)
        except SystemExit as ended:
            code = int(ended.code or 0)
    return Ended(code, out.getvalue(), err.getvalue())


def forge(path: Path) -> None:
    """Writes the hash of an exchanged file into the manifest of its artifact, so that the artifact verifies."""
    folder = next(parent for parent in path.parents if (parent / MANIFEST).is_file())
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][path.relative_to(folder).as_posix()] = describe(path)
    (folder / MANIFEST).write_text(json.dumps(manifest))
