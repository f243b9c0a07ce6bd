"""`train.py` within this process: how it ends and what it says, without the seconds that imports take."""

from __future__ import annotations

import io
import json
import os
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

from hydra import compose, initialize_config_dir

from conftest import CHECKOUT
from test_pipeline import SMALL
from tslrec.artifacts import MANIFEST
from tslrec.composition import register_schema
from tslrec.files import describe
from tslrec.pipeline import run

RUN = ["method=tslrec", *SMALL, "training.max_epochs=1"]
"""All five stages, in a few seconds."""


@dataclass(frozen=True)
class Ended:
    """How a run ended: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def refusal(self) -> str:
        """The one line by which it ended."""
        assert self.code == 2, self.err
        (line,) = self.err.strip().splitlines()
        assert line.startswith("error: ")
        return line


def train_here(*overrides: str, folder: Path) -> Ended:
    """Runs what `train.py` runs, with artifacts and cache in a folder; a defect keeps its traceback."""
    register_schema()
    arguments = [*overrides, f"artifacts={folder / 'artifacts'}", f"cache={folder / 'cache'}"]
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        initialize_config_dir(str(CHECKOUT / "configs"), version_base="1.3"),
        # The name of the job is put there.
        patch.dict(os.environ),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        try:
            run(compose("train", overrides=arguments), arguments)
        except SystemExit as ended:
            code = int(ended.code or 0)
    return Ended(code, out.getvalue(), err.getvalue())


def forge(path: Path) -> None:
    """Makes the manifest of an artifact agree with a file that was exchanged."""
    folder = next(parent for parent in path.parents if (parent / MANIFEST).is_file())
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"][path.relative_to(folder).as_posix()] = describe(path)
    (folder / MANIFEST).write_text(json.dumps(manifest))
