"""Beam search for many users at once: the encoder, and the decoder's view of the source, are computed once per user.

The rules are those of transformers' `generate` (5.24, length penalty 1), so that the lists are, too: of the best 2 K
continuations those that complete a beam enter the user's list if they are among the best K, and the K best others go
on. A completed beam's score is the sum of its tokens' log-probabilities divided by their number, `</s>` counted.

Shapes: U users, K beams of a user, T tokens of a beam so far, A heads, E size of a head, D width, V vocabulary,
N source tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from tslrec.llm.encoder_decoder.candidates import ROOT, Continuations, TrieChildren
from tslrec.llm.encoder_decoder.model import EncoderDecoder, seen_by_decoder
from tslrec.llm.encoder_decoder.packing import Sources
from tslrec.llm.encoder_decoder.shape import PADDING
from tslrec.llm.encoder_decoder.trie import Trie

View = Sequence[Tensor]
"""What the decoder reads of the sources: each layer's keys and values, `[N, 2, A, E]`."""


class Steps(Protocol):
    """A language model, one token of each beam at a time. Every user begins with one beam."""

    def logits(self, last_UK: Tensor) -> Tensor:
        """The scores of all tokens after each beam's last one, float32 `[U, K, V]`.

        Args:
            last_UK: each beam's last token; the first call is before any token, and gives `PADDING`.
        """

    def reorder(self, beams_UK: Tensor) -> None:
        """Makes each new beam the continuation of the beam with this number, from 0."""


class Beams(NamedTuple):
    """Completed beams of each user, the best first, in the caller's order of users.

    Attributes:
        tokens_UKT: int64, without the decoder's first input; `PADDING` behind a beam's end.
        nodes_UK: int64, where a beam ended in the trie; `ROOT` without a trie and where there is no beam.
        scores_UK: mean log-probability of the tokens; -inf where there is no beam.
    """

    tokens_UKT: Tensor
    nodes_UK: Tensor
    scores_UK: Tensor


@dataclass(frozen=True)
class BeamSearch:
    """How to search.

    Attributes:
        num_beams: K.
        max_tokens: tokens of a beam at most; one that is as long is complete.
        early_stopping: a user is finished with K complete beams; otherwise only once none of the others could
            become better, judged by its present mean log-probability.
    """

    num_beams: int
    max_tokens: int
    early_stopping: bool = False

    @torch.no_grad()
    def __call__(
        self, model: EncoderDecoder, sources: Sources, continuations: Continuations, view: View | None = None
    ) -> Beams:
        """Searches.

        Args:
            model: the language model, in evaluation.
            sources: one per user. Users of `continuations` are numbered by the sources' rows.
            continuations: what may follow a beam.
            view: of these sources, for several searches; None computes it.
        """
        steps = DecoderSteps(model, sources, self.max_tokens, view_of(model, sources) if view is None else view)
        num_users, device = len(sources.order_B), sources.tokens_N.device
        found = self.search(steps, num_users, continuations, device)
        place_U = torch.empty_like(sources.order_B).scatter_(0, sources.order_B, torch.arange(num_users, device=device))
        return Beams(*(each[place_U] for each in found))

    @torch.no_grad()
    def search(self, steps: Steps, num_users: int, continuations: Continuations, device: torch.device) -> Beams:
        """Searches with any language model.

        Args:
            steps: of the language model, at its beginning.
            num_users: U.
            continuations: what may follow a beam.
            device: of the language model.

        Returns:
            The beams in the order of the users of `steps`.
        """
        found = nothing_found(num_users, self.num_beams, self.max_tokens, device)
        tokens_UKT = torch.zeros(num_users, 1, 0, dtype=torch.long, device=device)
        last_UK = torch.full((num_users, 1), PADDING, device=device)
        nodes_UK = torch.full((num_users, 1), ROOT, device=device)
        scores_UK = torch.zeros(num_users, 1, device=device)
        searching_U = torch.ones(num_users, dtype=torch.bool, device=device)
        for length in range(1, self.max_tokens + 1):
            given = continuations.candidates(scores_UK, nodes_UK, steps.logits(last_UK))
            best_UC, places_UC = given.scores_UC.topk(min(2 * self.num_beams, given.scores_UC.shape[1]), dim=1)
            beams_UC, last_UC, nodes_UC = (each.gather(1, places_UC) for each in given[1:])
            complete_UC = continuations.complete(last_UC, nodes_UC) | (length == self.max_tokens)
            grown_UCT = torch.cat([taken(tokens_UKT, beams_UC), last_UC[..., None]], dim=2)
            enters_UC = complete_UC & searching_U[:, None]
            enters_UC[:, self.num_beams :] = False
            entering_UC = (best_UC / length).masked_fill(~enters_UC, -torch.inf)
            found = merged(found, Beams(grown_UCT, nodes_UC, entering_UC))
            scores_UK, goes_on_UK = best_UC.masked_fill(complete_UC, -torch.inf).topk(
                min(self.num_beams, best_UC.shape[1]), dim=1
            )
            searching_U = searching_U & self.may_improve(found.scores_UK, scores_UK, length)
            if not searching_U.any():
                break
            last_UK, nodes_UK = last_UC.gather(1, goes_on_UK), nodes_UC.gather(1, goes_on_UK)
            tokens_UKT = taken(grown_UCT, goes_on_UK)
            steps.reorder(beams_UC.gather(1, goes_on_UK))
        return found

    def may_improve(self, found_UK: Tensor, running_UK: Tensor, length: int) -> Tensor:
        """Whether a user's running beams may still change its list.

        Args:
            found_UK: scores of its complete beams.
            running_UK: sums of log-probabilities of its running beams, the best first.
            length: tokens of the running beams.
        """
        worst_U = found_UK.amin(dim=1)
        if self.early_stopping:
            return (worst_U == -torch.inf) & (running_UK[:, 0] > -torch.inf)
        return running_UK[:, 0] / length > worst_U


class DecoderSteps:
    """The decoder, one token of each beam at a time.

    Args:
        model: the language model.
        sources: one per user.
        max_tokens: steps at most.
        view: of the sources.
    """

    def __init__(self, model: EncoderDecoder, sources: Sources, max_tokens: int, view: View) -> None:
        self.model = model
        self.cross = view
        self.bias_ATT = model.decoder.causal_bias(max_tokens)
        self.seen = seen_by_decoder(sources, self.bias_ATT.dtype)
        self.cached: list[Tensor | None] = [None] * len(self.cross)
        self.length = 0

    def logits(self, last_UK: Tensor) -> Tensor:
        """The scores of all tokens after each beam's last one, float32 `[U, K, V]`.

        Args:
            last_UK: each beam's last token, in the order of the sources' rows.
        """
        model = self.model
        states_UK1D = model.decoder.dropout(model.tokens(last_UK[..., None]))
        bias = self.bias_ATT[None, :, self.length : self.length + 1, : self.length + 1]
        for i, layer in enumerate(model.decoder.layers):
            states_UK1D, self.cached[i] = layer(states_UK1D, self.cached[i], bias, self.cross[i], self.seen)
        self.length += 1
        return model.logits(model.scaled(states_UK1D[:, :, 0])).float()

    def reorder(self, beams_UK: Tensor) -> None:
        """Gives each new beam the keys and values of the beam that it continues."""
        num_users = len(beams_UK)
        known = self.cached[0]
        assert known is not None
        first_U1 = torch.arange(num_users, device=beams_UK.device)[:, None] * (len(known) // num_users)
        chosen = (first_U1 + beams_UK).flatten()
        self.cached = [None if each is None else each.index_select(0, chosen) for each in self.cached]


@torch.no_grad()
def view_of(model: EncoderDecoder, sources: Sources) -> View:
    """Runs the encoder, and computes the keys and values that each layer of the decoder reads.

    Args:
        model: the language model, in evaluation.
        sources: one per user.
    """
    return model.cross(model.encode(sources))


def nothing_found(num_users: int, num_beams: int, max_tokens: int, device: torch.device) -> Beams:
    """Lists without a beam."""
    tokens_UKT = torch.full((num_users, num_beams, max_tokens), PADDING, device=device)
    nodes_UK = torch.full((num_users, num_beams), ROOT, device=device)
    return Beams(tokens_UKT, nodes_UK, torch.full((num_users, num_beams), -torch.inf, device=device))


def merged(found: Beams, new: Beams) -> Beams:
    """The best beams of both, as many as were found before; `new` has tokens of a smaller width."""
    wider = torch.nn.functional.pad(new.tokens_UKT, (0, found.tokens_UKT.shape[2] - new.tokens_UKT.shape[2]))
    nodes = new.nodes_UK.masked_fill(new.scores_UK == -torch.inf, ROOT)
    tokens = wider.masked_fill((new.scores_UK == -torch.inf)[..., None], PADDING)
    scores_UK, chosen_UK = torch.cat([found.scores_UK, new.scores_UK], 1).topk(found.scores_UK.shape[1], dim=1)
    tokens_UKT = taken(torch.cat([found.tokens_UKT, tokens], 1), chosen_UK)
    return Beams(tokens_UKT, torch.cat([found.nodes_UK, nodes], 1).gather(1, chosen_UK), scores_UK)


def taken(tokens_UCT: Tensor, places_UK: Tensor) -> Tensor:
    """The rows of each user at some places, `[U, K, T]`."""
    return tokens_UCT.gather(1, places_UK[..., None].expand(-1, -1, tokens_UCT.shape[2]))


def generate_items(
    model: EncoderDecoder,
    sources: Sources,
    trie: Trie,
    seen: Tensor | None,
    *,
    num_beams: int,
    view: View | None = None,
) -> tuple[Tensor, Tensor]:
    """A list of items for each user by beam search over all items' codes.

    Args:
        model: the language model, in evaluation.
        sources: one per user.
        trie: of all items.
        seen: `trie.seen(…)`, the users in the caller's order: they get none of these items; None allows all.
        num_beams: beams, and length of the list.
        view: of the sources, where several lists of them are generated.

    Returns:
        Items int64 `[U, K]`, 0 where a place holds none, and their scores, both in the caller's order.
    """
    if seen is not None:
        row_B = torch.empty_like(sources.order_B)
        row_B[sources.order_B] = torch.arange(len(row_B), device=row_B.device)
        users, places = seen // trie.num_items, seen % trie.num_items
        seen = (row_B[users] * trie.num_items + places).sort().values
    search = BeamSearch(num_beams, max_tokens=trie.depth)
    beams = search(model, sources, TrieChildren(trie, seen), view)
    return trie.item_X[beams.nodes_UK], beams.scores_UK
