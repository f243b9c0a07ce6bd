"""The adapted language model that predicts a preference distribution (paper, Eq. 1 and 2).

Shapes: B examples, D hidden size of the backbone, H hidden size of the language model, K clusters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from tslrec.llm.packing import PackedExamples
from tslrec.llm.prompt import Prompt
from tslrec.llm.prompted import H_U, KeysAndValues, PromptedLLM
from tslrec.llm.reading import Reading

if TYPE_CHECKING:
    from peft import PeftModel


class PreferenceOutput(NamedTuple):
    """Attributes:
    knowledge_BH: h^u of Eq. 1, the last hidden state at the last token of the response, or what else was asked for.
    logits_BK: before the softmax of Eq. 2, float32.
    """

    knowledge_BH: Tensor
    logits_BK: Tensor


class PreferenceLLM(PromptedLLM):
    """Language model with LoRA, item projection and group head (Section 4.1).

    Args:
        adapted: see `PromptedLLM`, as the others but one.
        num_clusters: K.
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
    ) -> None:
        super().__init__(adapted, prompt, item_embeddings_ID, shared_prefix=shared_prefix)
        self.group_head = nn.Linear(self.knowledge_size, num_clusters)
        # With PyTorch's default the softmax could start saturated, where the squared error has no gradient.
        nn.init.normal_(self.group_head.weight, std=1e-3)
        nn.init.zeros_(self.group_head.bias)
        self.register_buffer("centre_H", torch.zeros(self.knowledge_size), persistent=False)
        self.register_buffer("spread_H", torch.ones(self.knowledge_size), persistent=False)

    def forward(self, examples: PackedExamples, prefix: KeysAndValues | None = None) -> PreferenceOutput:
        """Knowledge and logits; the arguments are those of `read`."""
        return self.know(examples, prefix, H_U)

    def know(self, examples: PackedExamples, prefix: KeysAndValues | None, reading: Reading) -> PreferenceOutput:
        """The same with the knowledge read elsewhere; the logits are those of h^u, which the group head was trained on.

        Args:
            examples: see `read`.
            prefix: see `read`.
            reading: layer and position.
        """
        states = self.states(examples, prefix, every_layer=reading.every_layer)
        preference_BH = H_U(states, examples, len(self.response_J))
        standardised_BH = (preference_BH.to(self.centre_H.dtype) - self.centre_H) / self.spread_H
        logits_BK = self.group_head(standardised_BH)
        if reading == H_U:
            return PreferenceOutput(preference_BH, logits_BK)
        return PreferenceOutput(reading(states, examples, len(self.response_J)), logits_BK)

    @torch.no_grad()
    def calibrate(self, examples: PackedExamples) -> None:
        """Fixes the numbers by which the group head's inputs are centred and scaled, from a sample of users.

        Before training, h^u differs little between users beside what all have in common and a few huge dimensions; the
        head learns faster when it reads the difference. What it can express stays Eq. 2: see
        `folded_group_head`.
        """
        knowledge_BH = self(examples).knowledge_BH.float()
        self.centre_H.copy_(knowledge_BH.mean(dim=0))
        self.spread_H.copy_(knowledge_BH.std(dim=0).clamp(min=1e-3))

    @torch.no_grad()
    def folded_group_head(self) -> nn.Linear:
        """W_gp and b_gp of Eq. 2, which apply to h^u itself: the group head with the standardisation folded in."""
        folded = nn.Linear(self.knowledge_size, self.group_head.out_features)
        folded.weight.copy_(self.group_head.weight / self.spread_H)
        folded.bias.copy_(self.group_head.bias - folded.weight.to(self.centre_H) @ self.centre_H)
        return folded
