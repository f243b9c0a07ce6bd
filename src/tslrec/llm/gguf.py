"""Weights in GGUF, the format of llama.cpp: converted to safetensors once, and the copy kept in the cache."""

from __future__ import annotations

import glob
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from tslrec.system.warning_filters import without_loading_bars

GGUF_MAGIC = b"GGUF"
"""The first bytes of every GGUF file."""

SOURCE_FILE = "source.json"
"""The file in a converted copy that holds the identity of its source."""


def is_gguf(path: Path) -> bool:
    """Whether a file begins like GGUF."""
    with path.open("rb") as file:
        return file.read(len(GGUF_MAGIC)) == GGUF_MAGIC


def converted_copy(path: Path, folder: Path, identity: dict[str, Any]) -> Path:
    """The folder of the converted copy, which is made first if it is missing.

    Args:
        path: the GGUF file.
        folder: where the copy is, or will be.
        identity: identity of the source, written into the copy.
    """
    from filelock import FileLock

    finished = folder / SOURCE_FILE
    if not finished.is_file():
        folder.parent.mkdir(parents=True, exist_ok=True)
        # Several runs, or several processes of one run, may want the copy: one of them converts, the others wait.
        with FileLock(folder.with_name(folder.name + ".lock")):
            if not finished.is_file():
                convert_gguf(path, folder, identity)
    return folder


def convert_gguf(path: Path, folder: Path, identity: dict[str, Any]) -> None:
    """Writes a GGUF model as float32 safetensors with its tokenizer; takes about half a minute for 135M parameters.

    The files are written into a temporary folder that is renamed at the end, so a folder that holds `source.json` is
    complete. What a killed conversion left is removed: the caller holds the lock, so nobody is writing there.

    Args:
        path: the GGUF file.
        folder: the copy's folder; must not exist.
        identity: identity of the source, written into `source.json`.
    """
    import torch
    from rich.text import Text
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils.quantization_config import GgufConfig

    from tslrec.system.consoles import plain_console

    without_loading_bars()
    folder.parent.mkdir(parents=True, exist_ok=True)
    for left in folder.parent.glob(f".{glob.escape(folder.name)}-*"):
        shutil.rmtree(left)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        with plain_console(stderr=True).status(Text(f"Converting {path.name} to safetensors (only once)")):
            tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)
            model = AutoModel.from_pretrained(
                path.parent,
                gguf_file=path.name,
                # Otherwise the weights stay quantised, and transformers cannot save them.
                quantization_config=GgufConfig(dequantize=True),
                trust_remote_code=False,
                dtype=torch.float32,
            )
            model.save_pretrained(aside)
            tokenizer.save_pretrained(aside)
        (aside / SOURCE_FILE).write_text(json.dumps(identity, indent=2))
        aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
