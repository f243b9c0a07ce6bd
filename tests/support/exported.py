"""An export with an ONNX graph, made as `tslrec export` makes it."""

from __future__ import annotations

from pathlib import Path

from tslrec.cli import main


def export_with_onnx(finished_run: Path, folder: Path) -> Path:
    """Exports the only run of a working directory into a new folder, and returns that folder."""
    main.run(["export", str(finished_run / "artifacts"), "--to", str(folder), "--onnx"])
    return folder
