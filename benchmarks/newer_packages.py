"""Lets RecBole 1.2.1 and RecTools 0.19.0 run on numpy 2 and pandas 3, which both of them exclude.

A machine without a network has the packages that it has. `install`, before either library is imported, gives back the
names that numpy 2 removed and the conversion of a tuple that pandas 3 refuses, and keeps text as objects. With the
versions that the libraries ask for (the environments of `make bench`) nothing changes. RecBole also fills missing
values in place, which pandas 3 no longer does: the data sets here have none.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

REMOVED_NAMES: dict[str, type] = {"float_": np.float64, "complex_": np.complex128, "unicode_": np.str_}
"""Names that RecBole's configuration uses, and the types that they meant."""


def install() -> None:
    """Changes numpy and pandas where they are newer than the libraries know."""
    for name, meant in REMOVED_NAMES.items():
        if not hasattr(np, name):
            setattr(np, name, meant)
    if int(pd.__version__.partition(".")[0]) >= 3:
        with warnings.catch_warnings():
            # The option goes with pandas 4.
            warnings.simplefilter("ignore")
            pd.set_option("future.infer_string", False)
        pd.unique = taking_sequences(pd.unique)


def taking_sequences(unique: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`pandas.unique` that takes a tuple or a list too, as before pandas 3."""

    def unique_of(values: Any) -> Any:
        return unique(np.array(values, dtype=object) if isinstance(values, tuple | list) else values)

    return unique_of
