"""The sizes of a Llama-like language model, and the parameter and operation counts that follow from them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path

from tslrec.settings.language_models import LLMConfig
from tslrec.system.errors import UserError

BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Bytes per number of each dtype."""


@dataclass(frozen=True)
class Shape:
    """Sizes under the names that transformers' config.json gives them.

    Attributes:
        hidden_size: width of the hidden states.
        intermediate_size: width of the feed-forward layer.
        num_hidden_layers: decoder layers.
        num_attention_heads: query heads per layer.
        num_key_value_heads: key-value heads per layer.
        head_dim: width of one attention head.
        vocab_size: tokens of the vocabulary.
        attention_bias: 1 if q, k and v have biases, else 0.
    """

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    head_dim: int
    vocab_size: int
    attention_bias: int = 0

    @property
    def linears(self) -> dict[str, tuple[int, int]]:
        """Input and output width of each linear layer of one decoder layer, by name."""
        size, inner = self.hidden_size, self.intermediate_size
        queries, keys = self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        return {
            "q_proj": (size, queries),
            "k_proj": (size, keys),
            "v_proj": (size, keys),
            "o_proj": (queries, size),
            "gate_proj": (size, inner),
            "up_proj": (size, inner),
            "down_proj": (inner, size),
        }

    @property
    def linear_parameters(self) -> int:
        """Weights of the linear layers of all decoder layers: every token is multiplied with each of them once."""
        return self.num_hidden_layers * sum(inputs * outputs for inputs, outputs in self.linears.values())

    @property
    def num_parameters(self) -> int:
        """Number of all parameters except the head for tokens, which is not loaded."""
        queries, keys = self.num_attention_heads * self.head_dim, self.num_key_value_heads * self.head_dim
        small = 2 * self.hidden_size + self.attention_bias * (queries + 2 * keys)
        outside = (self.vocab_size + 1) * self.hidden_size
        return self.linear_parameters + self.num_hidden_layers * small + outside

    @property
    def largest_layer(self) -> int:
        """Number of parameters of the largest single weight, which ZeRO-3 gathers as a whole."""
        linears = max(inputs * outputs for inputs, outputs in self.linears.values())
        return max(linears, self.vocab_size * self.hidden_size)

    def lora_parameters(self, rank: int, targets: Sequence[str]) -> int:
        """Number of trainable parameters of LoRA.

        Args:
            rank: r.
            targets: the linear layers whose names end in one of these are adapted.
        """
        adapted = [sizes for name, sizes in self.linears.items() if name.endswith(tuple(targets))]
        return self.num_hidden_layers * rank * sum(inputs + outputs for inputs, outputs in adapted)

    def forward_flops(self, tokens: float, seen: float) -> float:
        """Floating-point operations of a forward pass.

        Args:
            tokens: number of tokens in the pass.
            seen: number of tokens that each token attends to, summed over the tokens.
        """
        attention = 4 * self.num_hidden_layers * self.num_attention_heads * self.head_dim
        return 2.0 * self.linear_parameters * tokens + attention * seen


def sizes_in(path: Path) -> dict[str, int]:
    """The sizes that a model's `config.json` has.

    Raises:
        UserError: if it cannot be read.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return {each.name: int(content[each.name]) for each in fields(Shape) if content.get(each.name) is not None}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: no readable sizes of a language model ({error}); get the model anew") from error


def shape_of(llm: LLMConfig) -> Shape:
    """The sizes of a configured language model, from `llm.random`, `llm.shape` or the `config.json` in `llm.path`.

    Raises:
        UserError: if a size is missing, or the configuration names an unknown one.
    """
    if llm.random is not None:
        from tslrec.llm.tiny import NUM_BYTES, complete_sizes

        sizes: Mapping[str, int] = {**complete_sizes(llm.random), "vocab_size": NUM_BYTES}
    elif llm.shape is not None:
        sizes = llm.shape
    elif llm.path is not None and (path := Path(llm.path).expanduser() / "config.json").is_file():
        sizes = sizes_in(path)
    else:
        raise UserError(
            f"llm {llm.name}: its sizes are not known; set llm.path to the model's folder, or copy them from its "
            "config.json into shape in the choice's file of configs/llm"
        )
    known = {each.name for each in fields(Shape)}
    unknown = sorted(set(sizes) - known - {"seed"})
    if unknown:
        raise UserError(f"llm.shape: unknown {', '.join(unknown)}; it may set {', '.join(sorted(known))}")
    given = {name: value for name, value in sizes.items() if name in known}
    if "num_attention_heads" in given:
        given.setdefault("num_key_value_heads", given["num_attention_heads"])
        given.setdefault("head_dim", given.get("hidden_size", 0) // given["num_attention_heads"])
    missing = sorted(known - {"attention_bias"} - set(given))
    if missing:
        raise UserError(f"llm.shape: {', '.join(missing)} not given; copy it from the model's config.json")
    return Shape(**given)
