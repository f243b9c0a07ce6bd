"""A language model's architecture without its weights: built from config.json on PyTorch's meta device, and tried.

Shapes: H hidden size, N tokens.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import nn

from tslrec.llm.shared_attention import added_mask, attend
from tslrec.llm.weights_source import ResolvedSource
from tslrec.system.errors import UserError
from tslrec.system.warning_filters import install_warning_filters, without_loading_bars

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

PROBE = "tslrec_probe"
"""Name under which the attention is registered that counts its calls."""

WHERE_SHOWN = 90
"""Characters of a model's description or folder that a message shows."""

REASON_SHOWN = 110
"""Characters of another program's reason that a message shows."""


def build(source: ResolvedSource, folder: Path | None) -> PreTrainedModel:
    """The language model without numbers.

    Args:
        source: where the weights are.
        folder: of a model in the Hugging Face layout; None for one with random weights.

    Raises:
        UserError: if config.json describes no model that this project can run.
    """
    from transformers import AutoModel

    install_warning_filters()
    without_loading_bars()
    config = read_config(source, folder)
    where = short(source.description)
    refuse_encoders(config, where)
    try:
        with quietly(), torch.device("meta"):
            built: PreTrainedModel = AutoModel.from_config(config, dtype=torch.float32, attn_implementation="sdpa")
    except Exception as error:
        if "scaled_dot_product_attention" in str(error):
            raise UserError(
                f"llm {where}: {config.model_type} has no SDPA attention in transformers; choose another architecture, "
                "such as Llama, Qwen or GPT-2"
            ) from error
        raise UserError(f"llm {where}: config.json describes no model that can be built: {reason(error)}") from error
    refuse_capped_attention(config, where)
    heads, groups = getattr(config, "num_attention_heads", 1), getattr(config, "num_key_value_heads", None) or 1
    if heads % groups:
        raise UserError(
            f"llm {where}: the sizes in config.json do not fit together: num_key_value_heads {groups} must divide "
            f"num_attention_heads {heads}"
        )
    try:
        with quietly(), torch.device("meta"), torch.no_grad():
            built(inputs_embeds=torch.empty(1, 3, embedding_sizes(built)[1]), use_cache=False)
    except Exception as error:
        if "meta" not in str(error).lower():
            raise UserError(
                f"llm {where}: the sizes in config.json do not fit together: {reason(error)}; copy it anew"
            ) from error
    return built


def read_config(source: ResolvedSource, folder: Path | None) -> PreTrainedConfig:
    """The configuration of a language model.

    Raises:
        UserError: if config.json is no JSON, or of a model type that transformers does not know.
    """
    from transformers import AutoConfig, LlamaConfig

    if folder is None:
        from tslrec.llm.tiny import NUM_BYTES

        sizes: dict[str, Any] = {name: value for name, value in source.sizes.items() if name != "seed"}
        return LlamaConfig(**sizes, vocab_size=NUM_BYTES)
    path = folder / "config.json"
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{short(path)}: is no JSON ({reason(error)}); copy it anew from the model") from error
    kind = content.get("model_type") if isinstance(content, dict) else None
    if not isinstance(kind, str):
        raise UserError(f"{short(path)}: names no model_type; copy it anew from the model")
    try:
        with quietly():
            return AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise UserError(f"{short(path)}: {unknown_type(kind, error)}") from error


def unknown_type(kind: str, error: Exception) -> str:
    """Why a model's configuration cannot be read: its type is unknown, or a value of it is wrong.

    Args:
        kind: its `model_type`.
        error: transformers' error.
    """
    import difflib

    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    if "trust_remote_code" in str(error):
        return "wants code of its own to be run, which is never done; choose a model that transformers knows"
    if kind in CONFIG_MAPPING_NAMES:
        return f"cannot be read: {reason(error)}"
    near = difflib.get_close_matches(kind, list(CONFIG_MAPPING_NAMES), 1)
    return f"transformers knows no model_type '{kind[:40]}'" + (f" (nearest: {near[0]})" if near else "")


def refuse_encoders(config: PreTrainedConfig, where: str) -> None:
    """Refuses a model that is no decoder: one whose tokens see the tokens after them, or that has an encoder, too.

    Raises:
        UserError: naming its type.
    """
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    kind = config.model_type
    two_ways = kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES and not getattr(config, "is_decoder", False)
    if getattr(config, "is_encoder_decoder", False) or two_ways or kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise UserError(
            f"llm {where}: {kind} is no decoder-only language model, and h^u is read at the last token; choose "
            "one, such as Llama, Qwen or GPT-2"
        )


def refuse_capped_attention(config: PreTrainedConfig, where: str) -> None:
    """Refuses a model whose attention scores are capped, as Gemma 2's are: SDPA would leave the cap out.

    Raises:
        UserError: naming its type.
    """
    if getattr(config, "attn_logit_softcapping", None) is not None:
        raise UserError(
            f"llm {where}: {config.model_type} caps its attention scores, which SDPA does not do; choose another "
            "architecture, such as Llama, Qwen or GPT-2"
        )


def refuse_unfit_attention(model: PreTrainedModel, where: str) -> None:
    """Runs a pass over an instruction and two rows of examples, and looks whether every layer's attention allows it.

    Args:
        model: from `build`; its attention is another one afterwards.
        where: the model, for the message.

    Raises:
        UserError: naming `llm.shared_prefix`, which does without such a pass.
    """
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import sdpa_mask

    calls = []

    def counted(*arguments: Any, **others: Any) -> Any:
        calls.append(1)
        return attend(*arguments, **others)

    AttentionInterface.register(PROBE, counted)
    AttentionMaskInterface.register(PROBE, sdpa_mask)
    length, rows, width = 3, 2, 4
    _, size = embedding_sizes(model)
    remedy = "set llm.shared_prefix=false, or choose another architecture, such as Llama, Qwen or GPT-2"
    try:
        with quietly(), torch.device("meta"), torch.no_grad():
            model.set_attn_implementation(PROBE)
            tokens = length + rows * width
            model(
                inputs_embeds=torch.empty(1, tokens, size),
                attention_mask=added_mask(torch.empty(rows, 1, width, length + width, dtype=torch.bool), torch.float32),
                position_ids=torch.empty(1, tokens, dtype=torch.int64),
                use_cache=False,
            )
    except Exception as error:
        if "meta" in str(error).lower():
            return
        raise UserError(
            f"llm {where}: {model.config.model_type} cannot share the instruction ({reason(error)}); {remedy}"
        ) from error
    if not calls:
        raise UserError(f"llm {where}: {model.config.model_type} computes its attention another way; {remedy}")


def learned_positions(model: PreTrainedModel) -> int | None:
    """How many positions a model has, where it looks them up in a table; None where it computes them."""
    most = getattr(model.config, "max_position_embeddings", None)
    tables = [each for each in model.modules() if isinstance(each, nn.Embedding)]
    others = [each for each in tables if each is not model.get_input_embeddings()]
    # Some tables have a few more rows than positions.
    return most if most is not None and any(0 <= len(each.weight) - most <= 4 for each in others) else None


def embedding_sizes(model: PreTrainedModel) -> tuple[int, int]:
    """How many tokens a model has embeddings of, and H."""
    tokens, size = cast(nn.Embedding, model.get_input_embeddings()).weight.shape
    return tokens, size


def linear_layers(model: nn.Module) -> list[str]:
    """The whole names of the layers that LoRA can adapt."""
    from transformers.pytorch_utils import Conv1D

    return [name for name, module in model.named_modules() if isinstance(module, nn.Linear | Conv1D)]


def short(where: object) -> str:
    """A path, or a description that ends in one, the middle of a long one left out so that a line holds it."""
    text = str(where)
    return text if len(text) <= WHERE_SHOWN else f"{text[:16]}…{text[16 - WHERE_SHOWN :]}"


def reason(error: BaseException) -> str:
    """An exception's first line, cut to a length that fits into a message."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return text if len(text) <= REASON_SHOWN else f"{text[:REASON_SHOWN]}…"


@contextmanager
def quietly() -> Iterator[None]:
    """While active, neither Python nor transformers prints warnings."""
    from transformers.utils import logging as transformers_logging

    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        transformers_logging.set_verbosity(before)
