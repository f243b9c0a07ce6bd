"""Reads safetensors files, a format that cannot execute code on loading; any other file is refused in one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from tslrec.system.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

ID_MAP = "id_map"
"""Metadata key whose value is the `IdMap.digest` of the users and items that the file's rows belong to."""


def load_tensors(path: Path) -> dict[str, Tensor]:
    """Reads all arrays of a file as torch tensors, by name.

    Raises:
        UserError: if the file is not safetensors.
    """
    from safetensors.torch import load_file

    with refuse_unreadable(path):
        return load_file(path)


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Reads all arrays of a file as NumPy arrays, by name.

    Raises:
        UserError: if the file is not safetensors.
    """
    from safetensors.numpy import load_file

    with refuse_unreadable(path):
        arrays: dict[str, np.ndarray] = load_file(path)
        return arrays


def shapes(path: Path) -> tuple[dict[str, tuple[int, ...]], Mapping[str, str]]:
    """Reads a file's header only.

    Returns:
        The shape of each array by name, and the file's metadata.

    Raises:
        UserError: if the file is not safetensors.
    """
    with refuse_unreadable(path), safe_open(path, framework="np") as file:
        found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        return found, file.metadata() or {}


@contextmanager
def refuse_unreadable(path: Path) -> Iterator[None]:
    """Turns a safetensors reader's exception into a `UserError` that names the file."""
    try:
        yield
    except SafetensorError as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path}: not safetensors ({reason}); replace it, or delete the artifact that contains it"
        ) from error
