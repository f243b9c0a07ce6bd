"""Lists by beam search are transformers' own: constrained, masked, free text, with early stopping and without."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from support.encoder_decoders import Market, random_market
from tslrec.llm.encoder_decoder.beams import BeamSearch, generate_items
from tslrec.llm.encoder_decoder.candidates import AnyToken, TrieChildren
from tslrec.llm.encoder_decoder.exhaustive import score_all_items
from tslrec.llm.encoder_decoder.packing import Packer
from tslrec.llm.encoder_decoder.shape import END
from tslrec.llm.encoder_decoder.trie import build_trie


def their_lists(
    market: Market, num_beams: int, allowed: Callable[[int, torch.Tensor], Sequence[int]] | None, **settings: Any
) -> list[list[tuple[tuple[int, ...], float]]]:
    """Each user's list by transformers, a user at a time: tokens, and scores that belong to a beam."""
    lists = []
    for user, tokens in enumerate(market.tokens):
        found = market.theirs.generate(
            torch.from_numpy(tokens)[None],
            num_beams=num_beams,
            num_return_sequences=num_beams,
            prefix_allowed_tokens_fn=None if allowed is None else lambda _, prefix, user=user: allowed(user, prefix),
            output_scores=True,
            return_dict_in_generate=True,
            **settings,
        )
        rows = zip(found.sequences.tolist(), found.sequences_scores.tolist(), strict=True)
        # Scores below this are of beams that were filled up.
        lists.append([(until_end(row[1:]), score) for row, score in rows if score > -1e6])
    return lists


def until_end(tokens: Sequence[int]) -> tuple[int, ...]:
    return tuple(tokens[: tokens.index(END) + 1] if END in tokens else tokens)


def children(codes: Sequence[tuple[int, ...]], prefix: torch.Tensor) -> list[int]:
    before = tuple(prefix.tolist()[1:])
    return sorted({code[len(before)] for code in codes if code[: len(before)] == before and len(code) > len(before)})


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("num_beams", [2, 5])
def test_constrained_lists_are_those_of_transformers(seed: int, masked: bool, num_beams: int) -> None:
    market = random_market(seed)
    trie = build_trie(market.codes)
    open_codes = [
        [code for item, code in enumerate(market.codes) if item and not (masked and item in seen)]
        for seen in market.seen
    ]
    expected = their_lists(
        market, num_beams, lambda user, prefix: children(open_codes[user], prefix) or [END], max_length=trie.depth + 1
    )
    items_UK, scores_UK = generate_items(
        market.ours, market.sources, trie, trie.seen(market.seen) if masked else None, num_beams=num_beams
    )
    for user, listed in enumerate(expected):
        found = [market.codes[item] for item in items_UK[user].tolist() if item]
        assert found == [code for code, _ in listed]
        np.testing.assert_allclose(scores_UK[user, : len(found)], [score for _, score in listed], atol=1e-5)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("early_stopping", [False, True])
def test_free_texts_are_those_of_transformers(seed: int, early_stopping: bool) -> None:
    market = random_market(seed, likely_end=seed > 0)
    expected = their_lists(market, 6, None, max_length=9, early_stopping=early_stopping)
    beams = BeamSearch(6, max_tokens=8, early_stopping=early_stopping)(market.ours, market.sources, AnyToken())
    for user, listed in enumerate(expected):
        assert [until_end(row) for row in beams.tokens_UKT[user].tolist()] == [tokens for tokens, _ in listed]
        np.testing.assert_allclose(beams.scores_UK[user], [score for _, score in listed], atol=1e-5)


def test_a_user_who_has_seen_all_but_three_items_gets_three() -> None:
    market = random_market(0)
    everything = np.arange(1, len(market.codes))
    trie = build_trie(market.codes)
    seen: list[NDArray[np.int64]] = [everything[3:], everything, *[np.zeros(0, np.int64)] * (len(market.seen) - 2)]
    items_UK, scores_UK = generate_items(market.ours, market.sources, trie, trie.seen(seen), num_beams=5)
    assert sorted(items_UK[0].tolist()) == [0, 0, 1, 2, 3]
    assert items_UK[0, 3:].tolist() == [0, 0]
    assert items_UK[1].tolist() == [0] * 5
    assert torch.isinf(scores_UK[1]).all()
    assert (items_UK[2:] > 0).all()


def test_all_items_score_as_their_labels_do() -> None:
    market = random_market(1)
    trie = build_trie(market.codes)
    scores_UI = score_all_items(market.ours, market.sources, trie)
    assert torch.isinf(scores_UI[:, 0]).all()
    targets = [np.array(code) for code in market.codes[1:]]
    for user, tokens in enumerate(market.tokens):
        for item in (1, len(targets) // 2, len(targets)):
            with torch.no_grad():
                loss = market.ours(Packer()([tokens], [np.zeros_like(tokens)], targets[item - 1 : item]))
            assert float(scores_UI[user, item]) == pytest.approx(-float(loss), abs=1e-5)


def test_lists_are_the_best_of_all_items_where_no_beam_is_dropped() -> None:
    market = random_market(2)
    trie = build_trie(market.codes)
    beams = BeamSearch(trie.num_items, max_tokens=trie.depth)(market.ours, market.sources, TrieChildren(trie, None))
    best = score_all_items(market.ours, market.sources, trie).topk(trie.num_items)
    torch.testing.assert_close(beams.scores_UK, best.values)
    assert torch.equal(trie.item_X[beams.nodes_UK], best.indices)
