"""An adapted language model that reads item embeddings between the two parts of a prompt (paper, Eq. 1).

Shapes: B examples, R rows, T tokens of a row, P tokens of the instruction, J tokens of the response, S = P + T,
N = P + R × T tokens in all, I items (row 0 is padding), D hidden size of the backbone, H hidden size of the language
model, G key-value heads, E head size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tslrec.config import LoraConfig
from tslrec.data.packing import block_causal_mask
from tslrec.llm import shared_attention
from tslrec.llm.item_scaling import standardise_items
from tslrec.llm.packing import NO_EXAMPLE, PADDING_TOKEN, ROW_LENGTH, PackedExamples, Packer
from tslrec.llm.prompt import Prompt
from tslrec.llm.readout import PAPER_READOUT
from tslrec.llm.trained_layers import Float32Linear, use_low_rank_factors

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

KeysAndValues = Sequence[tuple[Tensor, Tensor]]
"""The instruction's keys and values in each layer of the language model, each `[1, G, P, E]`."""


class PromptedLLM(nn.Module):
    """A language model with LoRA and a linear item projection (Eq. 1); subclasses add a head that reads h^u.

    The language model's own weights and the backbone's item embeddings are frozen. The item embeddings are
    standardised (see `standardise_items`), and the projection is initialised so that projected items have the standard
    deviation of the language model's token embeddings.

    The instruction is the same for all examples. With `shared_prefix` it runs once per batch, with gradient, in one
    pass with the rest of the examples, which are packed into rows and attend to its keys and values
    (`shared_attention`). Outputs and gradients equal those of whole sequences. LoRA dropout is the exception: the
    instruction then has one dropout mask per batch instead of one per example.

    Args:
        adapted: the language model in PEFT's wrapper, without its head for tokens.
        prompt: token ids of the instruction and the response.
        item_embeddings_ID: the backbone's item embeddings, `[I + 1, D]`.
        shared_prefix: run the instruction once per batch; False runs a whole sequence per example.

    Attributes:
        adapted: the language model in PEFT's wrapper.
        packer: packs histories as this model reads them.
        knowledge_size: H.
        item_projection: linear_proj of Eq. 1, from D to H.
        items_ID: the standardised item embeddings.
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
        if shared_prefix:
            shared_attention.install(self.llm)
        self.packer = packer_of(prompt, shared_prefix=shared_prefix)
        tokens = cast(nn.Embedding, self._token_embedding()).weight
        self.knowledge_size = int(tokens.shape[1])
        self.item_projection = Float32Linear(item_embeddings_ID.shape[1], self.knowledge_size)
        token_std = float(tokens.detach().float().std())
        nn.init.normal_(self.item_projection.weight, std=token_std / self.item_projection.in_features**0.5)
        nn.init.zeros_(self.item_projection.bias)
        self.register_buffer("items_ID", standardise_items(item_embeddings_ID), persistent=False)
        self.register_buffer("instruction_P", torch.tensor(prompt.instruction), persistent=False)
        self.register_buffer("response_J", torch.tensor(prompt.response), persistent=False)

    @property
    def llm(self) -> PreTrainedModel:
        """The language model itself, with its adapted layers."""
        return cast("PreTrainedModel", self.adapted.base_model.model)

    def trainable_parameters(self) -> list[nn.Parameter]:
        """The parameters of LoRA, of the item projection and of the subclass's head."""
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def trained_layers(self) -> dict[str, nn.Module]:
        """The layers that are trained beside LoRA, by the names under which they are saved."""
        return {"item_projection": self.item_projection}

    def read(self, examples: PackedExamples, prefix: KeysAndValues | None = None) -> Tensor:
        """Computes h^u of Eq. 1: the last hidden state at the last token of the prompt.

        Args:
            examples: the batch, packed by `packer`.
            prefix: result of `run_prefix`, for running many batches with the same weights; None runs the instruction
                together with the batch.

        Returns:
            `[B, H]`.
        """
        return PAPER_READOUT(self.states(examples, prefix), examples, len(self.response_J))

    def states(
        self, examples: PackedExamples, prefix: KeysAndValues | None = None, *, every_layer: bool = False
    ) -> Sequence[Tensor]:
        """Computes the hidden states of packed examples.

        Args:
            examples: see `read`.
            prefix: see `read`.
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
        """Runs the instruction alone and returns its keys and values.

        Raises:
            ValueError: in training mode with gradient checkpointing, which cannot fill a cache.
        """
        cache = self.llm(inputs_embeds=self._instruction(1), use_cache=True).cache
        return [(layer.keys, layer.values) for layer in cache.layers]

    def _with_prefix(self, suffix_RTH: Tensor, examples: PackedExamples, every_layer: bool) -> Sequence[Tensor]:
        """One pass over a single long sequence of N tokens: the instruction once, then all rows."""
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
        # A cache grows in place, so each pass gets its own cache over the same prefix.
        cache = DynamicCache([(k.expand(rows, -1, -1, -1), v.expand(rows, -1, -1, -1)) for k, v in prefix])
        output = self.llm(
            inputs_embeds=suffix_RTH,
            attention_mask=self._seen(examples.examples_RT),
            position_ids=examples.positions_RT + len(self.instruction_P),
            cache=cache,
            use_cache=True,
            output_hidden_states=every_layer,
        )
        return states_of(output)

    def _whole_sequences(self, suffix_RTH: Tensor, examples: PackedExamples, every_layer: bool) -> Sequence[Tensor]:
        """One pass with one example per row: instruction, items, response, padding on the right."""
        instruction_RPH = self._instruction(suffix_RTH.shape[0])
        mask_RS = F.pad((examples.examples_RT != NO_EXAMPLE).long(), (len(self.instruction_P), 0), value=1)
        output = self.llm(
            inputs_embeds=torch.cat([instruction_RPH, suffix_RTH], dim=1),
            attention_mask=mask_RS,
            use_cache=False,
            output_hidden_states=every_layer,
        )
        return [state_RSH[:, len(self.instruction_P) :] for state_RSH in states_of(output)]

    def _seen(self, examples_RT: Tensor) -> Tensor:
        """Attention mask, bool `[R, 1, T, S]`: a token sees the instruction and its own example up to itself."""
        return F.pad(block_causal_mask(examples_RT), (len(self.instruction_P), 0), value=True)[:, None]

    def _instruction(self, rows: int) -> Tensor:
        return self._token_embedding()(self.instruction_P).expand(rows, -1, -1)

    def _token_embedding(self) -> nn.Module:
        return self.llm.get_input_embeddings()

    def _embed(self, tokens_RT: Tensor) -> Tensor:
        items_RTH = self.item_projection(F.embedding(tokens_RT.clamp(min=PADDING_TOKEN), self.items_ID))
        response_JH = self._token_embedding()(self.response_J)
        response_RTH = F.embedding((-1 - tokens_RT).clamp(min=0), response_JH)
        of_response_RT1 = (tokens_RT < 0)[..., None]
        # Not `torch.where`, whose backward pass copies a zero to a GPU, which the program then waits for.
        items_RTH = items_RTH.to(response_JH.dtype).masked_fill(of_response_RT1, 0.0)
        return items_RTH + response_RTH.masked_fill(~of_response_RT1, 0.0)


def states_of(output: Any) -> Sequence[Tensor]:
    """The hidden states in transformers' output: of every layer if they were asked for, else of the last."""
    return output.hidden_states or [output.last_hidden_state]


def packer_of(prompt: Prompt, *, shared_prefix: bool) -> Packer:
    """The packer for a model with this prompt; it puts several examples into a row only if they share the prefix."""
    return Packer(len(prompt.response), ROW_LENGTH if shared_prefix else None)


def add_lora(base: PreTrainedModel, lora: LoraConfig) -> PeftModel:
    """Freezes a base model and adds a trainable low-rank update to its linear layers (LoRA, Hu et al. 2021).

    Args:
        base: the language model; changed in place.
        lora: rank, scale, dropout and the layers to adapt.

    Returns:
        The model in PEFT's wrapper, LoRA's weights in float32. Its outputs equal the base model's, because LoRA starts
        at zero.
    """
    import peft

    settings: dict[str, Any] = {"r": lora.rank, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout}
    config = peft.LoraConfig(
        task_type=peft.TaskType.FEATURE_EXTRACTION, target_modules=list(lora.targets), bias="none", **settings
    )
    return use_low_rank_factors(cast("PeftModel", peft.get_peft_model(base, config)))
