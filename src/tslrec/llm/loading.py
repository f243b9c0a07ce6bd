"""Loads a language model's tokenizer and weights, without its head for tokens."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from tslrec.config import LLMConfig
from tslrec.errors import UserError
from tslrec.llm.source import SOURCE_FILE, ResolvedSource, fingerprint, on_this_machine
from tslrec.quiet import quieten, without_loading_bars

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DOWNLOADED = ["*.safetensors", "*.json", "*.txt", "*.jinja", "tokenizer.model"]
"""What of a hub's repository is downloaded: nothing that can execute on loading."""


def load(
    source: ResolvedSource, *, dtype: str, attention: str, weight_bits: int | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The base model and its tokenizer.

    Weights are read from safetensors only. GGUF is converted when it is first loaded; a model of the hub is downloaded
    into the hub's own cache.

    Args:
        source: where they are, as `resolve` found.
        dtype: `float32`, `bfloat16` or `float16`.
        attention: transformers' attention implementation.
        weight_bits: 8 or 4, of the linear layers, which then are on this process's GPU; None leaves them in `dtype`.

    Raises:
        UserError: if they can only be used by code that comes with them.
    """
    quieten()
    import torch
    from transformers import AutoConfig, AutoModel

    without_loading_bars()
    torch_dtype: torch.dtype = getattr(torch, dtype)
    if source.kind == "random":
        from tslrec.llm.tiny import byte_tokenizer, random_llama

        base: PreTrainedModel = random_llama(source.sizes, attention)
        return base.to(torch_dtype), byte_tokenizer()  # type: ignore[arg-type]
    folder, tokenizer = local_folder(source), load_tokenizer(source)
    if not source.pretrained:
        with without_foreign_code(folder):
            sizes = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return AutoModel.from_config(sizes, dtype=torch_dtype, attn_implementation=attention), tokenizer
    with without_foreign_code(folder):
        base = AutoModel.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch_dtype,
            attn_implementation=attention,
            **({} if weight_bits is None else quantised(weight_bits, torch_dtype)),
        )
    return base, tokenizer


def quantised(weight_bits: int, dtype: torch.dtype) -> dict[str, Any]:
    """What makes transformers quantise linear layers as it reads them: LLM.int8 or NF4 (Dettmers et al. 2022, 2023).

    Args:
        weight_bits: 8 or 4.
        dtype: that products are computed in.
    """
    import torch
    from transformers import BitsAndBytesConfig

    how = BitsAndBytesConfig(
        load_in_8bit=weight_bits == 8,
        load_in_4bit=weight_bits == 4,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_use_double_quant=True,
    )
    device = int(os.environ.get("LOCAL_RANK", "0")) if torch.cuda.is_available() else "cpu"
    return {"quantization_config": how, "device_map": {"": device}}


def load_tokenizer(source: ResolvedSource) -> PreTrainedTokenizerBase:
    """The tokenizer alone, converted or downloaded with the weights where they are not there yet.

    Raises:
        UserError: if it can only be used by code that comes with it.
    """
    quieten()
    if source.kind == "random":
        from tslrec.llm.tiny import byte_tokenizer

        return byte_tokenizer()
    from transformers import AutoTokenizer

    folder = local_folder(source)
    with without_foreign_code(folder):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    return tokenizer


def base_model(source: ResolvedSource) -> dict[str, Any]:
    """Which weights were loaded: their name and revision, and the size and a hash of each of their files.

    Args:
        source: of weights that were loaded; random ones have no files, and are known by their sizes and seed.
    """
    if source.kind == "random":
        return dict(source.identity)
    files = sorted(local_folder(source).glob("*.safetensors"))
    described = {file.name: {"bytes": file.stat().st_size, "fingerprint": fingerprint(file)} for file in files}
    return {**source.identity, "files": described}


@contextmanager
def without_foreign_code(folder: Path) -> Iterator[None]:
    """Says it in a line where transformers cannot read a folder without running code that lies in it.

    Raises:
        UserError: then.
    """
    try:
        yield
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise UserError(
            f"{folder}: wants code of its own to be run, which is never done; choose a model that transformers knows"
        ) from error


def tokenizer_at_hand(llm: LLMConfig, cache: Path) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a configured model, where that takes neither a network nor a conversion."""
    quieten()
    from transformers import AutoTokenizer

    source = on_this_machine(llm, cache)
    if source is None:
        return None
    if source.kind == "random":
        from tslrec.llm.tiny import byte_tokenizer

        return byte_tokenizer()
    folder = source.converted if source.kind == "gguf" else source.location
    if folder is None or not folder.is_dir():
        return None
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
        folder, local_files_only=True, trust_remote_code=False
    )
    return tokenizer


def local_folder(source: ResolvedSource) -> Path:
    """The folder in the Hugging Face layout, converted or downloaded where it is not there yet."""
    if source.kind == "gguf":
        assert source.location is not None
        assert source.converted is not None
        finished = source.converted / SOURCE_FILE
        if not finished.is_file():
            source.converted.parent.mkdir(parents=True, exist_ok=True)
            # Of several runs, or several processes of one, the first converts.
            with FileLock(source.converted.with_name(source.converted.name + ".lock")):
                if not finished.is_file():
                    convert_gguf(source.location, source.converted, source.identity)
        return source.converted
    if source.kind == "hub":
        from huggingface_hub import snapshot_download

        name, commit = source.identity["name"], source.identity["revision"]
        folder = Path(snapshot_download(name, revision=source.revision, allow_patterns=DOWNLOADED))
        if folder.name != commit:
            raise UserError(f"{name} has moved on from {commit[:12]} to {folder.name[:12]}; run again")
        return folder
    assert source.location is not None
    return source.location


def convert_gguf(path: Path, folder: Path, identity: dict[str, Any]) -> None:
    """Writes a GGUF model as float32 safetensors with its tokenizer, aside and then renamed; takes half a minute.

    `source.json`, which says where it came from, is part of the folder, so a folder that has it is whole.
    """
    import torch
    from rich.console import Console
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils.quantization_config import GgufConfig

    without_loading_bars()
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        with Console(stderr=True).status(f"Converting {path.name}, once"):
            tokenizer = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name, trust_remote_code=False)
            model = AutoModel.from_pretrained(
                path.parent,
                gguf_file=path.name,
                # Without this the weights stay in their quantised form, which cannot be saved.
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
