"""Which tokens may follow a beam: a trie's children, or any token.

Shapes: U users, K beams of a user, V vocabulary, C candidates of a user.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from tslrec.llm.encoder_decoder.shape import END
from tslrec.llm.encoder_decoder.trie import Trie

ROOT = 0
"""The node of a beam that has no token yet."""


class Candidates(NamedTuple):
    """Continuations of a user's beams by one token.

    Attributes:
        scores_UC: sum of log-probabilities with the new token; -inf: not allowed, or no candidate.
        beams_UC: int64, the beam that is continued.
        tokens_UC: int64, the new token.
        nodes_UC: int64, the node that it leads to.
    """

    scores_UC: Tensor
    beams_UC: Tensor
    tokens_UC: Tensor
    nodes_UC: Tensor


class Continuations(Protocol):
    """What may follow a beam, and when a beam is complete."""

    def candidates(self, scores_UK: Tensor, nodes_UK: Tensor, logits_UKV: Tensor) -> Candidates:
        """All allowed continuations.

        Args:
            scores_UK: sums of log-probabilities; -inf: no beam.
            nodes_UK: the beams' nodes.
            logits_UKV: scores of the next token.
        """

    def complete(self, tokens: Tensor, nodes: Tensor) -> Tensor:
        """Whether a beam ends with its last token.

        Args:
            tokens: the last token, any shape.
            nodes: the node, the same shape.
        """


class AnyToken:
    """Free text: each token may follow, `</s>` completes a beam. Nodes mean nothing."""

    def candidates(self, scores_UK: Tensor, nodes_UK: Tensor, logits_UKV: Tensor) -> Candidates:
        """All tokens after all beams."""
        num_tokens = logits_UKV.shape[2]
        scores_UC = (scores_UK[..., None] + logits_UKV.log_softmax(dim=2)).flatten(1)
        places_UC = torch.arange(scores_UC.shape[1], device=scores_UC.device).expand_as(scores_UC)
        beams_UC, tokens_UC = places_UC // num_tokens, places_UC % num_tokens
        return Candidates(scores_UC, beams_UC, tokens_UC, torch.zeros_like(places_UC))

    def complete(self, tokens: Tensor, nodes: Tensor) -> Tensor:
        """Whether the last token is `</s>`."""
        return tokens == END


class TrieChildren:
    """Only items' codes; a user with seen items gets none of those.

    Args:
        trie: of all items.
        seen: `trie.seen(…)` of these users; None allows all items.
    """

    def __init__(self, trie: Trie, seen: Tensor | None) -> None:
        self.trie = trie
        self.seen = seen

    def candidates(self, scores_UK: Tensor, nodes_UK: Tensor, logits_UKV: Tensor) -> Candidates:
        """The children of the beams' nodes, one beam after the other; users with fewer are filled up with -inf.

        Log-probabilities are over the whole vocabulary, not over the allowed tokens.
        """
        num_users, num_beams, num_tokens = logits_UKV.shape
        first_UK = self.trie.first_child_X[nodes_UK]
        counts_UK = (self.trie.first_child_X[nodes_UK + 1] - first_UK).masked_fill_(scores_UK == -torch.inf, 0)
        ends_UK = counts_UK.cumsum(1)
        most = int(ends_UK[:, -1].max())
        places_UC = torch.arange(most, device=nodes_UK.device).expand(num_users, -1).contiguous()
        beams_UC = torch.searchsorted(ends_UK, places_UC, right=True)
        exists_UC = beams_UC < num_beams
        beams_UC.clamp_(max=num_beams - 1)
        # The k-th beam's children lie at first + (place - children of the beams before it).
        offset_UK = first_UK - ends_UK + counts_UK
        children_UC = torch.where(exists_UC, offset_UK.gather(1, beams_UC) + places_UC, ROOT)
        tokens_UC = self.trie.token_X[children_UC]
        constant_UK = scores_UK - logits_UKV.logsumexp(dim=2)
        logits_UC = logits_UKV.flatten(1).gather(1, beams_UC * num_tokens + tokens_UC)
        allowed_UC = exists_UC
        if self.seen is not None:
            users_U1 = torch.arange(num_users, device=nodes_UK.device)[:, None]
            num_seen_UC = self.trie.num_seen(self.seen, users_U1, children_UC)
            allowed_UC = exists_UC & (self.trie.num_leaves_X[children_UC] > num_seen_UC)
        scores_UC = torch.where(allowed_UC, logits_UC + constant_UK.gather(1, beams_UC), -torch.inf)
        return Candidates(scores_UC, beams_UC, tokens_UC, children_UC)

    def complete(self, tokens: Tensor, nodes: Tensor) -> Tensor:
        """Whether an item's code ends at the node."""
        return self.trie.item_X[nodes] > 0
