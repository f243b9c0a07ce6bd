"""An adapted language model that reads items between the two parts of a prompt: embeddings (paper, Eq. 1) or titles.

Shapes: B examples, R rows, T tokens of a row, J tokens of the response, I items (row 0 is padding), V tokens of the
vocabulary, D hidden size of the backbone, H hidden size of the language model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tslrec.llm.item_input import EMBEDDINGS, ItemInput
from tslrec.llm.item_scaling import standardise_items
from tslrec.llm.packing import PADDING_TOKEN, ROW_LENGTH, PackedExamples, Packer
from tslrec.llm.prompt import Prompt
from tslrec.llm.readout import PAPER_READOUT
from tslrec.llm.shared_prefix import KeysAndValues, SharedPrefixLLM
from tslrec.llm.trained_layers import Float32Linear, use_low_rank_factors
from tslrec.settings.language_models import LoraConfig

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel


class PromptedLLM(SharedPrefixLLM[PackedExamples]):
    """A language model with LoRA and a linear item projection (Eq. 1); subclasses add a head that reads h^u.

    The language model's own weights and the backbone's item embeddings are frozen. The item embeddings are
    standardised (see `standardise_items`), and the projection is initialised so that projected items have the standard
    deviation of the language model's token embeddings.

    The instruction is the prefix that all examples share (`SharedPrefixLLM`).

    Beyond the paper, an item may also be the tokens of its title, or its projected embedding and then these tokens
    (`ItemInput`).

    Args:
        adapted: the language model in PEFT's wrapper, without its head for tokens.
        prompt: token ids of the instruction and the response.
        item_embeddings_ID: the backbone's item embeddings, `[I + 1, D]`.
        shared_prefix: run the instruction once per batch; False runs a whole sequence per example.
        items: what an item is made of.

    Attributes:
        adapted: the language model in PEFT's wrapper.
        packer: packs histories as this model reads them.
        knowledge_size: H.
        item_projection: linear_proj of Eq. 1, from D to H; None of a model that reads titles alone.
        items_ID: the standardised item embeddings.
    """

    items_ID: Tensor
    response_J: Tensor

    def __init__(
        self,
        adapted: PeftModel,
        prompt: Prompt,
        item_embeddings_ID: Tensor,
        *,
        shared_prefix: bool = True,
        items: ItemInput = EMBEDDINGS,
    ) -> None:
        super().__init__(adapted, prompt.instruction, shared_prefix=shared_prefix)
        self.packer = packer_of(prompt, shared_prefix=shared_prefix, items=items)
        tokens = cast(nn.Embedding, self._token_embedding()).weight
        self.knowledge_size = int(tokens.shape[1])
        self.item_projection = new_projection(item_embeddings_ID.shape[1], tokens) if items.has_embedding else None
        self.register_buffer("items_ID", standardise_items(item_embeddings_ID), persistent=False)
        self.register_buffer("response_J", torch.tensor(prompt.response), persistent=False)

    def trained_layers(self) -> dict[str, nn.Module]:
        """The layers that are trained beside LoRA, by the names under which they are saved."""
        return {} if self.item_projection is None else {"item_projection": self.item_projection}

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

    def _embed(self, tokens_RT: Tensor) -> Tensor:
        if self.packer.items.titles is None:
            response_JH = self._token_embedding()(self.response_J)
            text_RTH = F.embedding((-1 - tokens_RT).clamp(min=0), response_JH)
        else:
            text_RTH = self._token_embedding()(self._words(tokens_RT))
        of_text_RT1 = (tokens_RT < 0)[..., None]
        text_RTH = text_RTH.masked_fill(~of_text_RT1, 0.0)
        if self.item_projection is None:
            return text_RTH
        items_RTH = self.item_projection(F.embedding(tokens_RT.clamp(min=PADDING_TOKEN), self.items_ID))
        # Not `torch.where`, whose backward pass copies a zero to a GPU, which the program then waits for.
        return items_RTH.to(text_RTH.dtype).masked_fill(of_text_RT1, 0.0) + text_RTH

    def _words(self, tokens_RT: Tensor) -> Tensor:
        """The language model's token at each place of response and titles, int64 `[R, T]`; elsewhere any."""
        numbers_RT, most = (-1 - tokens_RT).clamp(min=0), len(self.response_J)
        of_response_RT = self.response_J[numbers_RT.clamp(max=most - 1)]
        return torch.where(numbers_RT < most, of_response_RT, numbers_RT - most)


def new_projection(item_size: int, tokens_VH: Tensor) -> Float32Linear:
    """linear_proj of Eq. 1 before training: standardised items get the standard deviation of the token embeddings.

    Args:
        item_size: D.
        tokens_VH: the language model's token embeddings.
    """
    projection = Float32Linear(item_size, int(tokens_VH.shape[1]))
    nn.init.normal_(projection.weight, std=float(tokens_VH.detach().float().std()) / item_size**0.5)
    nn.init.zeros_(projection.bias)
    return projection


def packer_of(prompt: Prompt, *, shared_prefix: bool, items: ItemInput = EMBEDDINGS) -> Packer:
    """The packer for a model with this prompt; it puts several examples into a row only if they share the prefix."""
    return Packer(len(prompt.response), ROW_LENGTH if shared_prefix else None, items)


def add_lora(base: PreTrainedModel, lora: LoraConfig, *, token_table: bool = False) -> PeftModel:
    """Freezes a base model and adds a trainable low-rank update to its linear layers (LoRA, Hu et al. 2021).

    Args:
        base: the language model; changed in place.
        lora: rank, scale, dropout and the layers to adapt.
        token_table: whether to adapt the table of token embeddings, too.

    Returns:
        The model in PEFT's wrapper, LoRA's weights in float32. Its outputs equal the base model's, because LoRA starts
        at zero.
    """
    import peft

    settings: dict[str, Any] = {"r": lora.rank, "lora_alpha": lora.alpha, "lora_dropout": lora.dropout}
    targets = list(lora.targets)
    if token_table:
        table = base.get_input_embeddings()
        targets.append(next(name for name, module in base.named_modules() if module is table))
    config = peft.LoraConfig(
        task_type=peft.TaskType.FEATURE_EXTRACTION, target_modules=targets, bias="none", **settings
    )
    return use_low_rank_factors(cast("PeftModel", peft.get_peft_model(base, config)))
