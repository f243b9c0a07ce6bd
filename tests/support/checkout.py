"""Where the checkout and the reference files are, and what a program started by a test needs to import."""

from __future__ import annotations

import os
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]

PYTHONPATH = os.pathsep.join(
    path for path in (*(str(CHECKOUT / folder) for folder in ("src", "tests")), os.environ.get("PYTHONPATH")) if path
)
"""The package and `support` as they are in this checkout, whichever version is installed; then the paths of this
process, which hold the packages on a machine where nothing can be installed."""


def golden_folder() -> Path:
    """The folder of the reference files; it may not exist.

    They are the environment variable's `TSLREC_GOLDEN`, or lie in `.gpu/golden`, where they travel to a machine without
    a network, or in `shared/golden` beside the checkout.
    """
    named, carried = os.environ.get("TSLREC_GOLDEN"), CHECKOUT / ".gpu" / "golden"
    if named:
        return Path(named)
    return carried if carried.is_dir() else CHECKOUT.parent / "shared" / "golden"
