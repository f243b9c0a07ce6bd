"""An adapted language model that runs what all examples of a batch begin with, the prefix, once for all of them.

Shapes: R rows, T tokens of a row, P tokens of the prefix, S = P + T, N = P + R × T tokens in all, H hidden size of the
language model, G key-value heads, E head size.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tslrec.data.packing import block_causal_mask
from tslrec.llm import shared_attention
from tslrec.llm.packing import NO_EXAMPLE

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

KeysAndValues = Sequence[tuple[Tensor, Tensor]]
"""The prefix's keys and values in each layer of the language model, each `[1, G, P, E]`."""


class PackedRows(Protocol):
    """What every kind of packed examples tells of its rows."""

    @property
    def tokens_RT(self) -> Tensor:  # noqa: N802 - a shape suffix is a capital letter
        """Int64, what is embedded; the subclass of `SharedPrefixLLM` knows what the numbers mean."""

    @property
    def examples_RT(self) -> Tensor:  # noqa: N802
        """Int64, the example that the token belongs to; `NO_EXAMPLE` for padding."""

    @property
    def positions_RT(self) -> Tensor:  # noqa: N802
        """Int64, the token's position in its example, from 0."""


Packed = TypeVar("Packed", bound=PackedRows)


class SharedPrefixLLM(nn.Module, Generic[Packed]):
    """A frozen language model with LoRA; subclasses say what is read between the prefix and the end, and add heads.

    The prefix is the same for all examples. With `shared_prefix` it runs once per batch, with gradient, in one pass
    with the rest of the examples, which are packed into rows and attend to its keys and values (`shared_attention`).
    Outputs and gradients equal those of whole sequences. LoRA dropout is the exception: the prefix then has one dropout
    mask per batch instead of one per example.

    Args:
        adapted: the language model in PEFT's wrapper, without its head for tokens.
        prefix: token ids of the prefix.
        shared_prefix: run the prefix once per batch; False runs a whole sequence per example.

    Attributes:
        adapted: the language model in PEFT's wrapper.
    """

    instruction_P: Tensor

    def __init__(self, adapted: PeftModel, prefix: Sequence[int], *, shared_prefix: bool = True) -> None:
        super().__init__()
        self.adapted = adapted
        self.shared_prefix = shared_prefix
        if shared_prefix:
            shared_attention.install(self.llm)
        self.register_buffer("instruction_P", torch.tensor(list(prefix), dtype=torch.int64), persistent=False)

    @property
    def llm(self) -> PreTrainedModel:
        """The language model itself, with its adapted layers."""
        return cast("PreTrainedModel", self.adapted.base_model.model)

    def trainable_parameters(self) -> list[nn.Parameter]:
        """The parameters of LoRA and of what is trained beside it."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def trained_layers(self) -> dict[str, nn.Module]:
        """The layers that are trained beside LoRA, by the names under which they are saved."""
        return {}

    def states(
        self, examples: Packed, prefix: KeysAndValues | None = None, *, every_layer: bool = False
    ) -> Sequence[Tensor]:
        """Computes the hidden states of packed examples.

        Args:
            examples: the batch, packed as the subclass packs.
            prefix: result of `run_prefix`, for running many batches with the same weights; None runs the prefix
                together with the batch.
            every_layer: return the states of the embeddings and of every layer, not just of the last.

        Returns:
            Hidden states `[R, T, H]`; the final norm is applied to the last one.
        """
        suffix_RTH = self._embed(examples.tokens_RT)
        if not self.shared_prefix:
            return self._whole_sequences(suffix_RTH, examples, every_layer)
        if prefix is None:
            return self._with_prefix(suffix_RTH, examples, every_layer)
        return self._after_prefix(suffix_RTH, examples, prefix, every_layer)

    def run_prefix(self) -> KeysAndValues:
        """Runs the prefix alone and returns its keys and values.

        Raises:
            ValueError: in training mode with gradient checkpointing, which cannot fill a cache.
        """
        cache = self.llm(inputs_embeds=self._instruction(1), use_cache=True).cache
        return [(layer.keys, layer.values) for layer in cache.layers]

    def _with_prefix(self, suffix_RTH: Tensor, examples: Packed, every_layer: bool) -> Sequence[Tensor]:
        """One pass over a single long sequence of N tokens: the prefix once, then all rows."""
        length = len(self.instruction_P)
        positions_N = torch.cat([torch.arange(length, device=suffix_RTH.device), self._positions(examples).flatten()])
        output = self.llm(
            inputs_embeds=torch.cat([self._instruction(1), suffix_RTH.flatten(0, 1)[None]], dim=1),
            attention_mask=shared_attention.added_mask(self._seen(examples), suffix_RTH.dtype),
            position_ids=positions_N[None],
            use_cache=False,
            output_hidden_states=every_layer,
        )
        return [state_1NH[0, length:].view_as(suffix_RTH) for state_1NH in states_of(output)]

    def _after_prefix(
        self, suffix_RTH: Tensor, examples: Packed, prefix: KeysAndValues, every_layer: bool
    ) -> Sequence[Tensor]:
        from transformers import DynamicCache

        rows = suffix_RTH.shape[0]
        # A cache grows in place, so each pass gets its own cache over the same prefix.
        cache = DynamicCache([(k.expand(rows, -1, -1, -1), v.expand(rows, -1, -1, -1)) for k, v in prefix])
        output = self.llm(
            inputs_embeds=suffix_RTH,
            attention_mask=self._seen(examples),
            position_ids=self._positions(examples),
            cache=cache,
            use_cache=True,
            output_hidden_states=every_layer,
        )
        return states_of(output)

    def _whole_sequences(self, suffix_RTH: Tensor, examples: Packed, every_layer: bool) -> Sequence[Tensor]:
        """One pass with one example per row: the prefix, the rest, padding on the right."""
        instruction_RPH = self._instruction(suffix_RTH.shape[0])
        mask_RS = F.pad((examples.examples_RT != NO_EXAMPLE).long(), (len(self.instruction_P), 0), value=1)
        output = self.llm(
            inputs_embeds=torch.cat([instruction_RPH, suffix_RTH], dim=1),
            attention_mask=mask_RS,
            use_cache=False,
            output_hidden_states=every_layer,
        )
        return [state_RSH[:, len(self.instruction_P) :] for state_RSH in states_of(output)]

    def _positions(self, examples: Packed) -> Tensor:
        """The position of each token in its whole sequence, `[R, T]`."""
        return examples.positions_RT + len(self.instruction_P)

    def _seen(self, examples: Packed) -> Tensor:
        """Attention mask, bool `[R, 1, T, S]`: a token sees the prefix and its own example up to itself."""
        return F.pad(block_causal_mask(examples.examples_RT), (len(self.instruction_P), 0), value=True)[:, None]

    def _instruction(self, rows: int) -> Tensor:
        return self._token_embedding()(self.instruction_P).expand(rows, -1, -1)

    def _token_embedding(self) -> nn.Module:
        return self.llm.get_input_embeddings()

    @abstractmethod
    def _embed(self, tokens_RT: Tensor) -> Tensor:
        """The vectors of an example's tokens, `[R, T, H]`."""


def states_of(output: Any) -> Sequence[Tensor]:
    """The hidden states in transformers' output: of every layer if they were asked for, else of the last."""
    return output.hidden_states or [output.last_hidden_state]
