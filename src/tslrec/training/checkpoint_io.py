"""A training state as a folder of safetensors and JSON, in place of the pickle that Lightning writes.

A Lightning checkpoint is a tree of dicts, lists, numbers and tensors. The tensors go to `state.safetensors`, the tree,
with a reference in the place of each tensor, to `state.json`. So reading a checkpoint cannot execute code.
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

from tslrec.system.errors import UserError
from tslrec.system.files import write_json
from tslrec.system.safetensors_io import load_tensors

TENSORS = "state.safetensors"
TREE = "state.json"

LEFT_OUT = ("hyper_parameters", "hparams_name", "datamodule_hyper_parameters", "datamodule_hparams_name")
"""Entries of a Lightning checkpoint that are not written: the stage's recipe in its artifact already has them."""


class CheckpointFiles(CheckpointIO):
    """Lightning's plugin to write and read checkpoints, for every strategy but DeepSpeed, which has its own format."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Writes the state into a new folder.

        Raises:
            TypeError: if the state holds anything but tensors, numbers, text, dicts, lists and tuples.
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
            UserError: if the JSON cannot be parsed, or the tensors cannot be read.
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
    """A tree in a form that JSON can hold, with `{"tensor": NAME}` in the place of each tensor.

    Args:
        value: the tree.
        tensors: gets the tensors, by consecutive numbers as their names.

    Raises:
        TypeError: if the tree holds anything but tensors, numbers, text, dicts, lists and tuples.
    """
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"float": str(value)}
    if isinstance(value, Tensor):
        name = str(len(tensors))
        # A copy: safetensors refuses tensors that share memory.
        tensors[name] = value.detach().cpu().contiguous().clone()
        return {"tensor": name}
    if isinstance(value, dict):
        return {"dict": [[encode(key, tensors), encode(each, tensors)] for key, each in value.items()]}
    if isinstance(value, list | tuple):
        kind = "list" if isinstance(value, list) else "tuple"
        return {kind: [encode(each, tensors) for each in value]}
    raise TypeError(f"a {type(value).__name__} cannot be kept in a checkpoint")


def decode(tree: Any, tensors: dict[str, Tensor]) -> Any:
    """The tree that `encode` was given.

    Args:
        tree: what `encode` returned.
        tensors: the tensors by name.

    Raises:
        ValueError: if the tree names a kind of value that `encode` does not write.
    """
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
