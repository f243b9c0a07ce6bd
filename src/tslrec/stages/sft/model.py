"""The adapted language model that predicts a user's preference distribution (paper, Eq. 1 and 2).

Shapes: B examples, I items (row 0 is padding), D hidden size of the backbone, H hidden size of the language model,
K clusters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from tslrec.llm.item_input import EMBEDDINGS, ItemInput
from tslrec.llm.packing import PackedExamples
from tslrec.llm.prompt import Prompt
from tslrec.llm.prompted import KeysAndValues, PromptedLLM
from tslrec.llm.readout import PAPER_READOUT, Readout
from tslrec.llm.trained_layers import Float32Linear

if TYPE_CHECKING:
    from peft import PeftModel


class PreferenceOutput(NamedTuple):
    """The knowledge embedding and the predicted preferences of each example.

    Attributes:
        knowledge_BH: h^u of Eq. 1, the last hidden state at the last token of the prompt; or the hidden state that
            another readout chose.
        logits_BK: logits of the preference distribution, float32, before the softmax of
            Eq. 2.
    """

    knowledge_BH: Tensor
    logits_BK: Tensor


class PreferenceLLM(PromptedLLM):
    """A language model with LoRA, an item projection and a group head (paper, Section 4.1).

    Args:
        adapted: see `PromptedLLM`.
        prompt: see `PromptedLLM`.
        item_embeddings_ID: see `PromptedLLM`.
        num_clusters: K.
        shared_prefix: see `PromptedLLM`.
        items: see `PromptedLLM`.

    Attributes:
        group_head: linear layer from the standardised h^u to the logits.
        centre_H: mean of h^u that the standardisation subtracts; see `calibrate`.
        spread_H: standard deviation of h^u that the standardisation divides by; see `calibrate`.
    """

    centre_H: Tensor
    spread_H: Tensor

    def __init__(
        self,
        adapted: PeftModel,
        prompt: Prompt,
        item_embeddings_ID: Tensor,
        num_clusters: int,
        *,
        shared_prefix: bool = True,
        items: ItemInput = EMBEDDINGS,
    ) -> None:
        super().__init__(adapted, prompt, item_embeddings_ID, shared_prefix=shared_prefix, items=items)
        self.group_head = Float32Linear(self.knowledge_size, num_clusters)
        # With PyTorch's default initialisation the softmax can start saturated, where the squared error has almost no
        # gradient.
        nn.init.normal_(self.group_head.weight, std=1e-3)
        nn.init.zeros_(self.group_head.bias)
        self.register_buffer("centre_H", torch.zeros(self.knowledge_size), persistent=False)
        self.register_buffer("spread_H", torch.ones(self.knowledge_size), persistent=False)

    def forward(self, examples: PackedExamples, prefix: KeysAndValues | None = None) -> PreferenceOutput:
        """Computes h^u and the logits; the arguments are those of `read`."""
        return self.forward_with_readout(examples, prefix, PAPER_READOUT)

    def forward_with_readout(
        self, examples: PackedExamples, prefix: KeysAndValues | None, reading: Readout
    ) -> PreferenceOutput:
        """Computes the logits from h^u, and the knowledge by another readout.

        The logits always come from h^u, because the group head was trained on it.

        Args:
            examples: see `read`.
            prefix: see `read`.
            reading: layer and position of the knowledge.

        Raises:
            UserError: if the model has no such layer.
        """
        states = self.states(examples, prefix, every_layer=reading.every_layer)
        preference_BH = PAPER_READOUT(states, examples, len(self.response_J))
        standardised_BH = (preference_BH.to(self.centre_H.dtype) - self.centre_H) / self.spread_H
        logits_BK = self.group_head(standardised_BH)
        if reading == PAPER_READOUT:
            return PreferenceOutput(preference_BH, logits_BK)
        return PreferenceOutput(reading(states, examples, len(self.response_J)), logits_BK)

    @torch.no_grad()
    def calibrate(self, examples: PackedExamples) -> None:
        """Fixes the mean and the spread by which the group head's inputs are standardised.

        Before training, h^u is nearly the same for all users, with a few huge dimensions. The head learns faster from
        the standardised differences. The model stays Eq. 2: see `folded_group_head`.

        Args:
            examples: a sample of users.
        """
        knowledge_BH = self(examples).knowledge_BH.float()
        self.centre_H.copy_(knowledge_BH.mean(dim=0))
        # A single user has no spread.
        correction = min(1, len(knowledge_BH) - 1)
        self.spread_H.copy_(knowledge_BH.std(dim=0, correction=correction).clamp(min=1e-3))

    def trained_layers(self) -> dict[str, nn.Module]:
        return {**super().trained_layers(), "group_head": self.folded_group_head()}

    @torch.no_grad()
    def folded_group_head(self) -> nn.Linear:
        """W_gp and b_gp of Eq. 2: the group head with the standardisation folded in, so that it applies to h^u."""
        folded = nn.Linear(self.knowledge_size, self.group_head.out_features)
        folded.weight.copy_(self.group_head.weight / self.spread_H)
        folded.bias.copy_(self.group_head.bias - folded.weight.to(self.centre_H) @ self.centre_H)
        return folded
