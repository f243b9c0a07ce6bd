"""The state of a training as a folder of safetensors and JSON: what Lightning writes as a pickle, without one.

A checkpoint of Lightning is a tree of dicts, lists, numbers and tensors. The tensors go to `state.safetensors`, the
tree with their places to `state.json`. So nothing can execute when one is read.
"""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.io import CheckpointIO
from safetensors.torch import save_file
from torch import Tensor

from tslrec.arrays import load_tensors
from tslrec.errors import UserError
from tslrec.files import write_json

TENSORS = "state.safetensors"
TREE = "state.json"

LEFT_OUT = ("hyper_parameters", "hparams_name", "datamodule_hyper_parameters", "datamodule_hparams_name")
"""What the recipe of the stage says already."""


class StateFiles(CheckpointIO):
    """Lightning's way to write and read checkpoints, for the strategies that have no way of their own (DeepSpeed)."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Writes the state into a new folder.

        Raises:
            TypeError: for a value that is neither a tensor nor plain.
        """
        folder = Path(path)
        folder.mkdir(parents=True)
        tensors: dict[str, Tensor] = {}
        tree = encode({key: value for key, value in checkpoint.items() if key not in LEFT_OUT}, tensors)
        save_file(tensors, folder / TENSORS)
        write_json(folder / TREE, tree)

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        """Reads the state from a folder, onto the CPU.

        Raises:
            UserError: if the files are not what was written.
        """
        folder = Path(path)
        try:
            tree = json.loads((folder / TREE).read_text(encoding="utf-8"))
        except ValueError as error:
            raise UserError(f"{folder / TREE}: not JSON ({error}); delete {folder.parent}") from error
        state = decode(tree, load_tensors(folder / TENSORS))
        assert isinstance(state, dict)
        return state

    def remove_checkpoint(self, path: Any) -> None:
        shutil.rmtree(path)


def encode(value: Any, tensors: dict[str, Tensor]) -> Any:
    """A tree as JSON; each tensor is put into `tensors`, by a number that takes its place.

    Raises:
        TypeError: for a value that is neither a tensor nor plain.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, Tensor):
        name = str(len(tensors))
        # A copy, since safetensors refuses tensors that share memory.
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[encode(key, tensors), encode(each, tensors)] for key, each in value.items()]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [encode(each, tensors) for each in value]}
    raise TypeError(f"a {type(value).__name__} cannot be kept in a checkpoint")


def decode(tree: Any, tensors: dict[str, Tensor]) -> Any:
    """The tree that `encode` was given."""
    if not isinstance(tree, dict):
        return tree
    ((kind, content),) = tree.items()
    match kind:
        case "float":
            return float(content)
        case "tensor":
            return tensors[content]
        case "dict":
            return {decode(key, tensors): decode(each, tensors) for key, each in content}
        case "list":
            return [decode(each, tensors) for each in content]
        case "tuple":
            return tuple(decode(each, tensors) for each in content)
        case _:
            raise ValueError(f"no kind of value '{kind}'")
