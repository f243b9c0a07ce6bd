"""Beam search with a decoder-only language model: each prompt is read once, for all beams of its user.

The K newest tokens of a user's beams are K tokens of one row, behind the keys and values of the prompt and of the
beams' earlier tokens. A mask keeps the beams apart, so the prompt is never copied for a beam.

Shapes: U users, K beams of a user, S tokens of the longest prompt, T tokens of a beam so far, G key-value heads, E size
of a head, H hidden size of the language model, V vocabulary.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from tslrec.llm.encoder_decoder.beams import BeamSearch
from tslrec.llm.encoder_decoder.candidates import TrieChildren
from tslrec.llm.encoder_decoder.trie import Trie
from tslrec.llm.extended_text import ExtendedTextLLM
from tslrec.llm.shared_prefix import KeysAndValues


class ReadPrompts(NamedTuple):
    """What a language model has of prompts that it has read.

    Attributes:
        keys_and_values: of each layer, `[U, G, S, E]` each.
        real_US: bool, False for padding behind a prompt.
        lengths_U: int64, tokens of each prompt.
        states_UH: the last hidden state at each prompt's last token.
    """

    keys_and_values: KeysAndValues
    real_US: Tensor
    lengths_U: Tensor
    states_UH: Tensor


@torch.no_grad()
def read_prompts(model: ExtendedTextLLM, tokens_US: Tensor, lengths_U: Tensor) -> ReadPrompts:
    """Runs prompts once.

    Args:
        model: the language model, in evaluation.
        tokens_US: int64, token ids, padded on the right.
        lengths_U: int64, tokens of each prompt, 1 or more.
    """
    from transformers import DynamicCache

    real_US = torch.arange(tokens_US.shape[1], device=tokens_US.device) < lengths_U[:, None]
    cache = DynamicCache()
    output = model.llm(inputs_embeds=model.embed(tokens_US), attention_mask=real_US.long(), cache=cache, use_cache=True)
    users_U = torch.arange(len(tokens_US), device=tokens_US.device)
    states_UH = output.last_hidden_state[users_U, lengths_U - 1]
    layers: list[Any] = cache.layers
    return ReadPrompts([(layer.keys, layer.values) for layer in layers], real_US, lengths_U, states_UH)


class PromptSteps:
    """A decoder-only language model, one token of each beam at a time (`encoder_decoder.beams.Steps`).

    The keys and values of the beams' tokens stand behind those of the prompts: first those of all beams' first tokens,
    then those of their second ones, and so on.

    Args:
        model: the language model, in evaluation.
        prompts: what it has read; they are not changed.
    """

    def __init__(self, model: ExtendedTextLLM, prompts: ReadPrompts) -> None:
        from transformers import DynamicCache

        self.model = model
        self.prompts = prompts
        self.cache = DynamicCache([*prompts.keys_and_values])
        self.length = 0

    def logits(self, last_UK: Tensor) -> Tensor:
        """See `Steps`. The tokens before the first one are the prompts'."""
        if self.length == 0:
            self.length = 1
            return self.model.logits(self.prompts.states_UH)[:, None].float()
        num_users, num_beams = last_UK.shape
        own_KT = torch.eye(num_beams, dtype=torch.bool, device=last_UK.device).repeat(1, self.length)
        seen_UKS = self.prompts.real_US[:, None].expand(-1, num_beams, -1)
        mask_U1KX = torch.cat([seen_UKS, own_KT.expand(num_users, -1, -1)], dim=2)[:, None]
        positions_UK = (self.prompts.lengths_U + self.length - 1)[:, None].expand(-1, num_beams)
        output = self.model.llm(
            inputs_embeds=self.model.embed(last_UK),
            attention_mask=mask_U1KX,
            position_ids=positions_UK,
            cache=self.cache,
            use_cache=True,
        )
        self.length += 1
        return self.model.logits(output.last_hidden_state).float()

    def reorder(self, beams_UK: Tensor) -> None:
        """See `Steps`. The prompts' keys and values stay where they are."""
        steps, longest = self.length - 1, self.prompts.real_US.shape[1]
        if steps == 0:
            return
        layers: list[Any] = self.cache.layers
        for layer in layers:
            layer.keys = reordered(layer.keys, longest, steps, beams_UK)
            layer.values = reordered(layer.values, longest, steps, beams_UK)


def reordered(states_UGXE: Tensor, longest: int, steps: int, beams_UK: Tensor) -> Tensor:
    """Keys or values in which each beam has those of the beam that it continues.

    Args:
        states_UGXE: of the prompts, then of the beams; changed in place where the number of beams stays.
        longest: S.
        steps: tokens of a beam.
        beams_UK: the number of the beam that each one continues.
    """
    of_beams_UGTKE = states_UGXE[:, :, longest:].unflatten(2, (steps, -1))
    index_UGTKE = beams_UK[:, None, None, :, None].expand(*of_beams_UGTKE.shape[:3], -1, of_beams_UGTKE.shape[4])
    chosen = of_beams_UGTKE.gather(3, index_UGTKE).flatten(2, 3)
    if chosen.shape[2] == states_UGXE.shape[2] - longest:
        states_UGXE[:, :, longest:] = chosen
        return states_UGXE
    return torch.cat([states_UGXE[:, :, :longest], chosen], dim=2)


def generate_after(
    model: ExtendedTextLLM, prompts: ReadPrompts, trie: Trie, seen: Tensor | None, *, num_beams: int
) -> tuple[Tensor, Tensor]:
    """A list of items for each user by beam search over all items' codes.

    Args:
        model: the language model, in evaluation.
        prompts: one per user; several searches may share them.
        trie: of all items.
        seen: `trie.seen(…)` of these users, who get none of these items; None allows all.
        num_beams: beams, and length of the list.

    Returns:
        Items int64 `[U, K]`, 0 where a place holds none, and their scores.
    """
    search = BeamSearch(num_beams, max_tokens=trie.depth)
    steps = PromptSteps(model, prompts)
    beams = search.search(steps, len(prompts.lengths_U), TrieChildren(trie, seen), prompts.lengths_U.device)
    return trie.item_X[beams.nodes_UK], beams.scores_UK
