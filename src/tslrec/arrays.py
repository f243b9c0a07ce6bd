"""Arrays on disk: safetensors, which hold nothing that executes; a file that is none is refused in one line."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from tslrec.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

ID_MAP = "id_map"
"""Where a file's metadata name the users and items that its rows stand for, by `IdMap.digest`."""


def load_tensors(path: Path) -> dict[str, Tensor]:
    """All arrays of a file, for torch.

    Raises:
        UserError: if it is not safetensors.
    """
    from safetensors.torch import load_file

    with refusing_others(path):
        return load_file(path)


def load_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of a file, for NumPy.

    Raises:
        UserError: if it is not safetensors.
    """
    from safetensors.numpy import load_file

    with refusing_others(path):
        arrays: dict[str, np.ndarray] = load_file(path)
        return arrays


def shapes(path: Path) -> tuple[dict[str, tuple[int, ...]], Mapping[str, str]]:
    """The shape of each array of a file, and the file's metadata, without the arrays.

    Raises:
        UserError: if it is not safetensors.
    """
    with refusing_others(path), safe_open(path, framework="np") as file:
        found = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        return found, file.metadata() or {}


@contextmanager
def refusing_others(path: Path) -> Iterator[None]:
    """Says in one line of which file a reader says that it is not safetensors."""
    try:
        yield
    except SafetensorError as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{path}: not safetensors ({reason}); replace it, or delete the artifact that it is part of"
        ) from error
