"""The figures of `recommend.py`."""

from __future__ import annotations

import sys
from typing import Any


class Figures:
    """What was measured, printed as it comes."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, Any]] = {}

    def add(self, name: str, value: float, unit: str) -> None:
        self.values[name] = {"value": round(value, 4), "unit": unit}
        print(f"recommend/{name} {value:.0f} {unit}" if unit == "count" else f"recommend/{name} {value:.4g} {unit}")
        sys.stdout.flush()
