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
from tslrec.stages.method_stages import stages_of
from tslrec.system.errors import UserError
from tslrec.system.machine_memory import in_gib, memory_bytes
from tslrec.system.shown_values import shown

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from tslrec.llm.prompt import Prompt

log = logging.getLogger(__name__)

LAYERS_SHOWN = 8
"""Names of layers that a message shows."""

ANSWER_ROOM = 32
"""Positions that are left for one of P5's answers where a message says how long its inputs may be."""


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
    if "p5_llm" in stages:
        found["p5.lora"] = config.p5.lora
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
    layers = model.config.num_hidden_layers
    for key, wanted in {"knowledge.layer": config.knowledge.layer, "item_text.layer": config.item_text.layer}.items():
        if wanted.isdecimal() and int(wanted) > layers:
            raise UserError(f"{key}={wanted}: llm={config.llm.name} has {layers} layers; name one of them")


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
    from tslrec.llm.loading import load_tokenizer, unreadable_tokenizer

    try:
        tokenizer = load_tokenizer(source)
    except UserError:
        raise
    except Exception as error:
        raise unreadable_tokenizer(source, error) from error
    where = short(source.description)
    vocabulary, _ = embedding_sizes(model)
    positions, most = learned_positions(model), getattr(model.config, "max_position_embeddings", None)
    stages = {stage.name for stage in stages_of(config)}
    if "ranker" in stages:
        check_ranker_prompt(config, tokenizer, model, where)
        check_head(source, model)
    if "p5_llm" in stages:
        check_p5_texts(config, tokenizer, model, where)
        check_head(source, model)
    if "title_states" in stages:
        check_titles_read(config, tokenizer, model, where)
    for encode, item_tokens in encoders(config):
        try:
            prompt = encode(tokenizer)
        except Exception as error:
            raise UserError(f"llm {where}: cannot encode the prompt: {reason(error)}") from error
        check_tokens(prompt, tokenizer, vocabulary, where)
        max_len = config.training.max_len
        around = len(prompt.instruction) + len(prompt.response)
        length = around + max_len * item_tokens
        text = f"{around} tokens of the prompt and training.max_len={max_len} items"
        # Titles can be made shorter, so what was never trained is refused, not only what cannot be computed.
        bound = positions
        if item_tokens > 1:
            text += f" of up to {item_tokens} tokens"
            bound = min((each for each in (positions, most) if each is not None), default=None)
        if bound is not None and length > bound:
            room = max(0, bound - around) // item_tokens
            raise UserError(
                f"llm {where}: {text} are more than its {bound} positions; "
                + (f"set training.max_len to {room} or less, or " if room > 0 else "")
                + ("lower sft.title_tokens, or " if item_tokens > 1 else "")
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


def check_p5_texts(config: Config, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, where: str) -> None:
    """Encodes what is between P5's inputs and answers, and compares the longest input with the model's positions.

    Raises:
        UserError: see `check_prompts`; and if the tokens of two words depend on each other.
    """
    from tslrec.llm.architecture import embedding_sizes, learned_positions
    from tslrec.llm.prompt import Prompt
    from tslrec.stages.p5.decoder_only import ContinuedPieces

    pieces = ContinuedPieces(tokenizer)
    check_tokens(Prompt(pieces.input_ending, pieces.output_ending), tokenizer, embedding_sizes(model)[0], where)
    positions, longest = learned_positions(model), config.p5.max_tokens
    if positions is not None and longest >= positions:
        raise UserError(
            f"llm {where}: p5.max_tokens={longest} leaves no room for an answer in its {positions} positions; set it "
            f"to {max(2, positions - ANSWER_ROOM)} or less"
        )


def check_titles_read(config: Config, tokenizer: PreTrainedTokenizerBase, model: PreTrainedModel, where: str) -> None:
    """Encodes what stands before titles and an example of one, and compares the longest with the model's positions.

    Raises:
        UserError: see `check_prompts`.
    """
    from tslrec.llm.architecture import embedding_sizes, learned_positions
    from tslrec.llm.continuations import continuations
    from tslrec.llm.prompt import Prompt
    from tslrec.llm.title_states import tokens_before

    before, longest = tokens_before(tokenizer), config.item_text.title_tokens
    check_tokens(Prompt(before, continuations(tokenizer, [" title"])[0]), tokenizer, embedding_sizes(model)[0], where)
    # Behind other text a title can have a token more than alone.
    room = None if (positions := learned_positions(model)) is None else positions - len(before) - 1
    if room is not None and longest > room:
        raise UserError(
            f"llm {where}: item_text.title_tokens={longest} and what stands before are more than its {positions} "
            f"positions; set it to {room}"
        )


def check_head(source: ResolvedSource, model: PreTrainedModel) -> None:
    """Checks that the weights of a model with a head for tokens of its own hold that head.

    Raises:
        UserError: if they do not.
    """
    from tslrec.llm.loading import local_folder
    from tslrec.llm.token_head import file_of_head

    if source.kind != "random" and source.pretrained and not model.config.tie_word_embeddings:
        file_of_head(local_folder(source))


def encoders(config: Config) -> list[tuple[Callable[[PreTrainedTokenizerBase], Prompt], int]]:
    """What encodes the prompts of the method's stages, and the tokens of an item in them at most."""
    from tslrec.stages.e4srec.prompt import encode_e4srec_prompt
    from tslrec.stages.sft.prompt import encode_prompt

    stages = {stage.name for stage in stages_of(config) if stage.runs_llm}
    found: list[tuple[Callable[[PreTrainedTokenizerBase], Prompt], int]] = []
    if stages - {"e4srec", "ranker", "p5_llm", "title_states"}:
        found.append(
            (lambda tokenizer: encode_prompt(tokenizer, config.preferences.num_clusters), config.sft.item_tokens)
        )
    return [*found, (encode_e4srec_prompt, 1)] if "e4srec" in stages else found


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
