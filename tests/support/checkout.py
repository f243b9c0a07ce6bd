"""Where the checkout is, and what a program started by a test needs to import from it."""

from __future__ import annotations

import os
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]

PYTHONPATH = os.pathsep.join(str(CHECKOUT / folder) for folder in ("src", "tests"))
"""The package and `support` as they are in this checkout, whichever version is installed."""
