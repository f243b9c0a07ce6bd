"""Loads a language model's weights, without its head for tokens, and its tokenizer."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from tslrec.llm import hub
from tslrec.llm.architecture import quietly
from tslrec.llm.gguf import converted_copy
from tslrec.llm.gradient_checkpointing import checkpoint_layers
from tslrec.llm.model_files import fingerprint
from tslrec.llm.weight_names import refuse_incomplete
from tslrec.llm.weights_source import ResolvedSource, resolve_locally
from tslrec.settings.language_models import LLMConfig
from tslrec.system.errors import UserError
from tslrec.system.warning_filters import install_warning_filters, without_loading_bars

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def load(
    source: ResolvedSource, *, dtype: str, weight_bits: int | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Loads the base model and its tokenizer.

    Weights are read from safetensors only. The first call converts GGUF, and downloads a model of the hub into the
    hub's own cache.

    Args:
        source: where the weights are, from `resolve`.
        dtype: `float32`, `bfloat16` or `float16`.
        weight_bits: 8 or 4 bits per weight of the linear layers, which are then placed on this process's GPU; None
            leaves them in `dtype`.

    Raises:
        UserError: if the model needs code of its own to be executed, or the weights are not those of the model.
    """
    install_warning_filters()
    from transformers import AutoConfig, AutoModel

    without_loading_bars()
    torch_dtype: torch.dtype = getattr(torch, dtype)
    if source.kind == "random":
        from tslrec.llm.tiny import byte_tokenizer, random_llama

        base: PreTrainedModel = random_llama(source.sizes)
        # Not `base.to`, which would round the rotary frequencies, too.
        for parameter in base.parameters():
            parameter.data = parameter.data.to(torch_dtype)
        return base, byte_tokenizer()
    folder, tokenizer = local_folder(source), load_tokenizer(source)
    if not source.pretrained:
        with refusing_foreign_code(folder):
            sizes = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return AutoModel.from_config(sizes, dtype=torch_dtype, attn_implementation="sdpa"), tokenizer
    # What transformers would report of the names is compared below.
    with refusing_foreign_code(folder), quietly():
        base, found = AutoModel.from_pretrained(
            folder,
            local_files_only=True,
            use_safetensors=True,
            trust_remote_code=False,
            dtype=torch_dtype,
            attn_implementation="sdpa",
            output_loading_info=True,
            **({} if weight_bits is None else quantised(weight_bits, torch_dtype)),
        )
    refuse_incomplete(folder, base, found)
    return base, tokenizer


def load_to_train(llm: LLMConfig, source: ResolvedSource) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Loads the base model and its tokenizer as configured, with gradient checkpointing if `llm` asks for it."""
    base, tokenizer = load(source, dtype=llm.dtype, weight_bits=llm.weight_bits)
    if llm.gradient_checkpointing:
        checkpoint_layers(base)
    return base, tokenizer


def load_tokenizer(source: ResolvedSource) -> PreTrainedTokenizerBase:
    """Loads the tokenizer alone; the weights are converted or downloaded with it if that was not done yet.

    Raises:
        UserError: if the tokenizer needs code of its own to be executed.
    """
    install_warning_filters()
    if source.kind == "random":
        from tslrec.llm.tiny import byte_tokenizer

        return byte_tokenizer()
    return _tokenizer_in(local_folder(source))


def local_tokenizer(llm: LLMConfig, cache: Path) -> PreTrainedTokenizerBase | None:
    """The tokenizer of a configured model, or None if it would take a download or a conversion.

    Args:
        llm: the configured model.
        cache: this project's cache.

    Raises:
        UserError: if the tokenizer cannot be read.
    """
    install_warning_filters()
    source = resolve_locally(llm, cache)
    if source is None:
        return None
    if source.kind == "random":
        from tslrec.llm.tiny import byte_tokenizer

        return byte_tokenizer()
    folder = source.converted if source.kind == "gguf" else source.location
    if folder is None or not folder.is_dir():
        return None
    try:
        return _tokenizer_in(folder)
    except UserError:
        raise
    except Exception as error:
        raise unreadable_tokenizer(source, error) from error


def unreadable_tokenizer(source: ResolvedSource, error: Exception) -> UserError:
    """The error of a tokenizer that transformers cannot read; it raises many kinds."""
    from tslrec.llm.architecture import reason, short

    return UserError(f"llm {short(source.description)}: its tokenizer cannot be read: {reason(error)}")


def local_folder(source: ResolvedSource) -> Path:
    """The folder of the weights in the Hugging Face layout; they are converted or downloaded first if necessary.

    Raises:
        UserError: if the hub's revision points to another commit than when the source was resolved.
    """
    if source.kind == "hub":
        return hub.download(source.identity["name"], source.revision, commit=source.identity["revision"])
    assert source.location is not None
    if source.kind == "gguf":
        assert source.converted is not None
        return converted_copy(source.location, source.converted, source.identity)
    return source.location


def describe_weights(source: ResolvedSource) -> dict[str, Any]:
    """Describes the loaded weights for a manifest: their identity, and the size and fingerprint of each file.

    Args:
        source: weights that were loaded before. Random ones have no files; their identity is their sizes and seed.

    Returns:
        The identity and, under `files`, `bytes` and `fingerprint` of each safetensors file by name.
    """
    if source.kind == "random":
        return dict(source.identity)
    files = sorted(local_folder(source).glob("*.safetensors"))
    described = {file.name: {"bytes": file.stat().st_size, "fingerprint": fingerprint(file)} for file in files}
    return {**source.identity, "files": described}


def quantised(weight_bits: int, dtype: torch.dtype) -> dict[str, Any]:
    """Arguments that make transformers quantise linear layers while it reads them.

    Args:
        weight_bits: 8 for LLM.int8 (Dettmers et al. 2022), 4 for NF4 (Dettmers et al. 2023).
        dtype: type in which the products of the 4-bit layers are computed.
    """
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


@contextmanager
def refusing_foreign_code(folder: Path) -> Iterator[None]:
    """Turns transformers' request to execute code from a model folder into a one-line error.

    Raises:
        UserError: if transformers cannot read the folder without executing code that lies in it.
    """
    try:
        yield
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise UserError(
            f"{folder}: wants code of its own to be run, which is never done; choose a model that transformers knows"
        ) from error


def _tokenizer_in(folder: Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    with refusing_foreign_code(folder):
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False
        )
    return tokenizer
