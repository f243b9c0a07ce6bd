"""TSLRec: a two-stage, LLM-enhanced way to train sequential recommenders.

`tslrec.load` loads a trained recommender; everything heavy is imported when it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tslrec.serving.loading import load
    from tslrec.serving.recommender import Recommender

__all__ = ["Recommender", "load"]

PLACES = {"Recommender": "tslrec.serving.recommender", "load": "tslrec.serving.loading"}
"""The module of each public name."""


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(PLACES[name]), name)
