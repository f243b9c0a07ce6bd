"""An adapted language model that reads item embeddings between the two parts of a prompt (paper, Eq. 1).

Shapes: B examples, R rows, T tokens of a row, P tokens of the instruction, I items (row 0 is padding), D hidden size of
the backbone, H hidden size of the language model, G key-value heads, E head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tslrec.config import LoraConfig
from tslrec.llm import shared_attention
from tslrec.llm.packing import NO_EXAMPLE, PADDING_TOKEN, ROW_LENGTH, PackedExamples, Packer
from tslrec.llm.prompt import Prompt
from tslrec.llm.reading import Reading
from tslrec.llm.scaling import Scaling
from tslrec.rows import own_past

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

KeysAndValues = Sequence[tuple[Tensor, Tensor]]
"""Of each layer, each `[1, G, P, E]`."""
H_U = Reading()
"""h^u of Eq. 1: the last hidden state at the last token."""


class PromptedLLM(nn.Module):
    """Language model with LoRA and an item projection; what is made of h^u is for the classes that build on it.

    The language model and the backbone's item embeddings are frozen. These are centred per dimension and scaled, all
    by one number, to a standard deviation of 1; the projection starts so that projected items have the standard
    deviation of the language model's own token embeddings.

    The instruction is the same for all examples. With `shared_prefix` it runs once a call, with gradient, and its keys
    and values are seen by all; what is left of the examples is packed into rows. Outputs and gradients are those of
    whole sequences, but for LoRA dropout, which then draws one mask of the instruction for the batch. Both run as one
    pass where the model's attention can be told who sees whom (`shared_attention`), else one after the other.

    Args:
        adapted: the language model, without its head for tokens, in PEFT's wrapper.
        prompt: token ids of the instruction and the response.
        item_embeddings_ID: the backbone's.
        shared_prefix: see above; False runs a whole sequence per example.
    """

    items_ID: Tensor
    instruction_P: Tensor
    response_J: Tensor

    def __init__(
        self, adapted: PeftModel, prompt: Prompt, item_embeddings_ID: Tensor, *, shared_prefix: bool = True
    ) -> None:
        super().__init__()
        self.adapted = adapted
        self.shared_prefix = shared_prefix
        self.one_pass = shared_prefix and shared_attention.install(self.llm)
        self.packer = packer_of(prompt, shared_prefix=shared_prefix)
        tokens = cast(nn.Embedding, self._token_embedding()).weight
        self.knowledge_size = int(tokens.shape[1])
        self.item_projection = nn.Linear(item_embeddings_ID.shape[1], self.knowledge_size)
        token_std = float(tokens.detach().float().std())
        nn.init.normal_(self.item_projection.weight, std=token_std / self.item_projection.in_features**0.5)
        nn.init.zeros_(self.item_projection.bias)
        self.register_buffer("items_ID", standardise(item_embeddings_ID), persistent=False)
        self.register_buffer("instruction_P", torch.tensor(prompt.instruction), persistent=False)
        self.register_buffer("response_J", torch.tensor(prompt.response), persistent=False)

    @property
    def llm(self) -> PreTrainedModel:
        """The language model itself, its adapted layers in place."""
        return cast("PreTrainedModel", self.adapted.base_model.model)

    def trainable_parameters(self) -> list[nn.Parameter]:
        """LoRA, item projection and what builds on them."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def read(self, examples: PackedExamples, prefix: KeysAndValues | None = None) -> Tensor:
        """h^u of Eq. 1 for packed examples (made by `packer`), `[B, H]`: the last hidden state at the last token.

        Args:
            examples: the batch.
            prefix: what `run_prefix` gave, to run many batches with the same weights; computed here where None.
        """
        return H_U(self.states(examples, prefix), examples, len(self.response_J))

    def states(
        self, examples: PackedExamples, prefix: KeysAndValues | None = None, *, every_layer: bool = False
    ) -> Sequence[Tensor]:
        """Hidden states of packed examples, `[R, T, H]` each: the last, or those of the embeddings and every layer.

        Args:
            examples: see `read`.
            prefix: see `read`.
            every_layer: see above; in the last of them, too, the final norm is applied.
        """
        suffix_RTH = self._embed(examples.tokens_RT)
        if not self.shared_prefix:
            return self._whole_sequences(suffix_RTH, examples, every_layer)
        if prefix is None and self.one_pass:
            return self._with_prefix(suffix_RTH, examples, every_layer)
        return self._after_prefix(suffix_RTH, examples, self.run_prefix() if prefix is None else prefix, every_layer)

    def run_prefix(self) -> KeysAndValues:
        """Keys and values of the instruction, with gradient."""
        cache = self.llm(inputs_embeds=self._instruction(1), use_cache=True).cache
        return [(layer.keys, layer.values) for layer in cache.layers]

    def _with_prefix(self, suffix_RTH: Tensor, examples: PackedExamples, every_layer: bool) -> Sequence[Tensor]:
        """One pass over the instruction and all rows; in front of the examples the instruction stands once."""
        length = len(self.instruction_P)
        positions_N = torch.cat(
            [torch.arange(length, device=suffix_RTH.device), examples.positions_RT.flatten() + length]
        )
        output = self.llm(
            inputs_embeds=torch.cat([self._instruction(1), suffix_RTH.flatten(0, 1)[None]], dim=1),
            attention_mask=shared_attention.added_mask(self._seen(examples.examples_RT), suffix_RTH.dtype),
            position_ids=positions_N[None],
            use_cache=False,
            output_hidden_states=every_layer,
        )
        return [state_1NH[0, length:].view_as(suffix_RTH) for state_1NH in states_of(output)]

    def _after_prefix(
        self, suffix_RTH: Tensor, examples: PackedExamples, prefix: KeysAndValues, every_layer: bool
    ) -> Sequence[Tensor]:
        from transformers import DynamicCache

        rows = suffix_RTH.shape[0]
        # A cache grows in place, so each pass gets one of its own over the same prefix.
        cache = DynamicCache([(k.expand(rows, -1, -1, -1), v.expand(rows, -1, -1, -1)) for k, v in prefix])
        output = self.llm(
            inputs_embeds=suffix_RTH,
            attention_mask=self._mask(examples.examples_RT, suffix_RTH.dtype),
            position_ids=examples.positions_RT + len(self.instruction_P),
            cache=cache,
            use_cache=True,
            output_hidden_states=every_layer,
        )
        return states_of(output)

    def _whole_sequences(self, suffix_RTH: Tensor, examples: PackedExamples, every_layer: bool) -> Sequence[Tensor]:
        """Every row is one example: instruction, items, response, padding on the right."""
        instruction_RPH = self._instruction(suffix_RTH.shape[0])
        mask_RS = F.pad((examples.examples_RT != NO_EXAMPLE).long(), (len(self.instruction_P), 0), value=1)
        output = self.llm(
            inputs_embeds=torch.cat([instruction_RPH, suffix_RTH], dim=1),
            attention_mask=mask_RS,
            use_cache=False,
            output_hidden_states=every_layer,
        )
        return [state_RSH[:, len(self.instruction_P) :] for state_RSH in states_of(output)]

    def _mask(self, examples_RT: Tensor, dtype: torch.dtype) -> Tensor:
        """Who sees whom, as the model's attention wants to be told."""
        seen_R1TS = self._seen(examples_RT)
        eager = self.llm.config._attn_implementation == "eager"
        return shared_attention.added_mask(seen_R1TS, dtype) if eager else seen_R1TS

    def _seen(self, examples_RT: Tensor) -> Tensor:
        """Who sees whom, bool `[R, 1, T, P + T]`: the instruction, and one's own example up to oneself."""
        return F.pad(own_past(examples_RT), (len(self.instruction_P), 0), value=True)[:, None]

    def _instruction(self, rows: int) -> Tensor:
        return self._token_embedding()(self.instruction_P).expand(rows, -1, -1)

    def _token_embedding(self) -> nn.Module:
        return self.llm.get_input_embeddings()

    def _embed(self, tokens_RT: Tensor) -> Tensor:
        items_RTH = self.item_projection(F.embedding(tokens_RT.clamp(min=PADDING_TOKEN), self.items_ID))
        response_JH = self._token_embedding()(self.response_J)
        response_RTH = F.embedding((-1 - tokens_RT).clamp(min=0), response_JH)
        return torch.where((tokens_RT < 0)[..., None], response_RTH, items_RTH.to(response_JH.dtype))


def states_of(output: Any) -> Sequence[Tensor]:
    """The hidden states that transformers gives: of every layer where asked for, else the last."""
    return output.hidden_states or [output.last_hidden_state]


def packer_of(prompt: Prompt, *, shared_prefix: bool) -> Packer:
    """What packs examples as a model with this prompt reads them: several to a row only where they share the prefix."""
    return Packer(len(prompt.response), ROW_LENGTH if shared_prefix else None)


def standardise(item_embeddings_ID: Tensor) -> Tensor:
    """Centres each dimension and scales the whole table to a standard deviation of 1, which keeps its geometry.

    The padding row takes no part and stays zero.
    """
    items_ID = item_embeddings_ID.detach()
    if len(items_ID) == 1:
        return torch.zeros(items_ID.shape, device=items_ID.device)
    return F.pad(Scaling.of(items_ID)(items_ID[1:]), (0, 0, 1, 0))


def add_lora(base: PreTrainedModel, lora: LoraConfig) -> PeftModel:
    """Wraps a base model, freezing it and adding a trainable low-rank update to the chosen linear layers."""
    import peft

    settings: dict[str, Any] = {"r": lora.rank, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout}
    config = peft.LoraConfig(
        task_type=peft.TaskType.FEATURE_EXTRACTION, target_modules=list(lora.targets), bias="none", **settings
    )
    return cast("PeftModel", peft.get_peft_model(base, config))
