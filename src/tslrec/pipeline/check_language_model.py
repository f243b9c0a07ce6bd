"""Whether a language model fits the method: weights, architecture, LoRA targets, prompt, memory; none is loaded.

Shapes: L items of the longest input, K clusters.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from tslrec.config import Config
from tslrec.llm.weights_source import ResolvedSource
from tslrec.settings.language_models import LoraConfig
from tslrec.stages.registry import stages_of
from tslrec.system.errors import UserError
from tslrec.system.machine_memory import in_gib, memory_bytes
from tslrec.system.shown_values import shown

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from tslrec.llm.prompt import Prompt

log = logging.getLogger(__name__)

LAYERS_SHOWN = 8
"""Names of layers that a message shows."""


def check_language_model(config: Config, source: ResolvedSource) -> None:
    """Checks a language model whose files are here; one that is still to be downloaded is checked when it is loaded.

    Args:
        config: of a method that runs the language model.
        source: where its weights are.

    Raises:
        UserError: naming what does not fit, and what to set.
    """
    from tslrec.llm import architecture
    from tslrec.llm.architecture import short
    from tslrec.llm.weight_names import check_weight_names

    folder = source.converted if source.kind == "gguf" else source.location
    if source.kind != "random" and (folder is None or not folder.is_dir()):
        return
    model = architecture.build(source, None if source.kind == "random" else folder)
    if folder is not None and source.kind != "random" and source.pretrained:
        check_weight_names(folder)
    check_layer_number(config, model)
    for key, lora in adapters(config).items():
        check_targets(key, lora, model)
    check_memory(config, model)
    check_prompts(config, source, model)
    if config.llm.shared_prefix:
        architecture.refuse_unfit_attention(model, short(source.description))


def adapters(config: Config) -> dict[str, LoraConfig]:
    """The LoRA settings that the method's stages read, by key."""
    stages = {stage.name for stage in stages_of(config)}
    found = {"llm.lora": config.llm.lora} if "sft" in stages else {}
    if "e4srec" in stages:
        found["e4srec.lora"] = config.e4srec.lora
    if "ranker" in stages:
        found["llamarec.lora"] = config.llamarec.lora
    return found


def check_targets(key: str, lora: LoraConfig, model: PreTrainedModel) -> None:
    """Checks that each LoRA target is the last part of the name of a linear layer.

    Args:
        key: such as `llm.lora`.
        lora: the settings.
        model: the language model without numbers.

    Raises:
        UserError: naming the layers that there are.
    """
    from tslrec.llm.architecture import linear_layers

    layers = linear_layers(model)
    ends = sorted({name.rpartition(".")[2] for name in layers})
    for target in lora.targets:
        if not any(name == target or name.endswith(f".{target}") for name in layers):
            near = difflib.get_close_matches(target, ends, 1)
            raise UserError(
                f"{key}.targets: no linear layer of {model.config.model_type} is named {shown(target)}; it has "
                f"{', '.join(ends[:LAYERS_SHOWN]) or 'none'}" + (f" (nearest: {near[0]})" if near else "")
            )


def check_layer_number(config: Config, model: PreTrainedModel) -> None:
    """Checks that the layer whose state is read exists.

    Raises:
        UserError: with the number of layers.
    """
    layers, wanted = model.config.num_hidden_layers, config.knowledge.layer
    if wanted.isdecimal() and int(wanted) > layers:
        raise UserError(f"knowledge.layer={wanted}: llm={config.llm.name} has {layers} layers; name one of them")


def check_memory(config: Config, model: PreTrainedModel) -> None:
    """Checks that the frozen weights fit into the memory of a machine that computes on its CPU.

    Raises:
        UserError: with the memory that they need.
    """
    from tslrec.llm.shape import BYTES

    needed = sum(parameter.numel() for parameter in model.parameters()) * BYTES[config.llm.dtype]
    there = memory_bytes()
    if there is not None and needed > there and not config.trainer.on_gpu:
        raise UserError(
            f"llm={config.llm.name}: its weights need {in_gib(needed)} in llm.dtype={config.llm.dtype}, there are "
            f"{in_gib(there)}; choose a smaller model"
        )


def check_prompts(config: Config, source: ResolvedSource, model: PreTrainedModel) -> None:
    """Encodes the prompts of the method's stages, and compares their lengths with the model's positions.

    Raises:
        UserError: if the tokenizer cannot be read or does not fit the model, or a prompt is too long for it.
    """
    from tslrec.llm.architecture import embedding_sizes, learned_positions, reason, short
    from tslrec.llm.loading import load_tokenizer

    try:
        tokenizer = load_tokenizer(source)
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"llm {short(source.description)}: its tokenizer cannot be read: {reason(error)}") from error
    where = short(source.description)
    vocabulary, _ = embedding_sizes(model)
    positions, most = learned_positions(model), getattr(model.config, "max_position_embeddings", None)
    if any(stage.name == "ranker" for stage in stages_of(config)):
        check_ranker_prompt(config, tokenizer, model, where)
        check_head(source, model)
    for encode in encoders(config):
        try:
            prompt = encode(tokenizer)
        except Exception as error:
            raise UserError(f"llm {where}: cannot encode the prompt: {reason(error)}") from error
        check_tokens(prompt, tokenizer, vocabulary, where)
        max_len = config.training.max_len
        length = len(prompt.instruction) + max_len + len(prompt.response)
        text = f"{length - max_len} tokens of the prompt and training.max_len={max_len} items"
        room = 0 if positions is None else positions - length + max_len
        if positions is not None and length > positions:
            raise UserError(
                f"llm {where}: {text} are more than its {positions} positions; "
                + (f"set training.max_len to {room} or less, or " if room > 0 else "")
                + "choose a model with more positions"
            )
        if most is not None and length > most:
            log.warning(f"warning: llm {where}: {text} are more than the {most} that it was trained with")


def check_ranker_prompt(config: Config, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, where: str) -> None:
    """Encodes the pieces of LlamaRec's prompts, and compares their longest length with the model's positions.

    Raises:
        UserError: see `check_prompts`; and if the tokenizer has no token for a candidate's letter.
    """
    from tslrec.llm.architecture import embedding_sizes, learned_positions
    from tslrec.llm.prompt import Prompt
    from tslrec.stages.llamarec.prompt import pieces_for

    numbers = config.llamarec
    pieces = pieces_for(tokenizer, numbers)
    tokens = Prompt(list(pieces.prefix), [*pieces.tail.tolist(), *pieces.answer.letters_C.tolist()])
    check_tokens(tokens, tokenizer, embedding_sizes(model)[0], where)
    text = f"llamarec.max_tokens={numbers.max_tokens} and the answer"
    positions, most = learned_positions(model), getattr(model.config, "max_position_embeddings", None)
    if positions is not None and numbers.max_tokens + 1 > positions:
        raise UserError(f"llm {where}: {text} are more than its {positions} positions; set it to {positions - 1}")
    if most is not None and numbers.max_tokens + 1 > most:
        log.warning(f"warning: llm {where}: {text} are more than the {most} that it was trained with")


def check_head(source: ResolvedSource, model: PreTrainedModel) -> None:
    """Checks that the weights of a model with a head for tokens of its own hold that head.

    Raises:
        UserError: if they do not.
    """
    from tslrec.llm.loading import local_folder
    from tslrec.llm.token_head import file_of_head

    if source.kind != "random" and source.pretrained and not model.config.tie_word_embeddings:
        file_of_head(local_folder(source))


def encoders(config: Config) -> list[Callable[[PreTrainedTokenizerBase], Prompt]]:
    """What encodes the prompts of the method's stages."""
    from tslrec.stages.e4srec.prompt import encode_e4srec_prompt
    from tslrec.stages.sft.prompt import encode_prompt

    stages = {stage.name for stage in stages_of(config) if stage.runs_llm}
    found: list[Callable[[PreTrainedTokenizerBase], Prompt]] = []
    if stages - {"e4srec", "ranker"}:
        found.append(lambda tokenizer: encode_prompt(tokenizer, config.preferences.num_clusters))
    return [*found, encode_e4srec_prompt] if "e4srec" in stages else found


def check_tokens(prompt: Prompt, tokenizer: PreTrainedTokenizerBase, vocabulary: int, where: str) -> None:
    """Checks that a prompt has tokens that the model has embeddings of.

    Args:
        prompt: the encoded prompt.
        tokenizer: that encoded it.
        vocabulary: tokens that the model has embeddings of.
        where: the model, for the message.

    Raises:
        UserError: if it has none, or others.
    """
    tokens: Collection[int] = [*prompt.instruction, *prompt.response]
    if not prompt.instruction or not prompt.response:
        raise UserError(f"llm {where}: its tokenizer makes no tokens of the prompt; give the model's own tokenizer")
    if max(tokens) >= vocabulary:
        raise UserError(
            f"llm {where}: its tokenizer gives token {max(tokens)}, the model has {vocabulary}; give the model's own "
            "tokenizer"
        )
    unknown = sum(token == tokenizer.unk_token_id for token in tokens)
    if 2 * unknown > len(tokens):
        raise UserError(
            f"llm {where}: its tokenizer does not know {unknown} of {len(tokens)} tokens of the prompt; give its "
            "own tokenizer"
        )
