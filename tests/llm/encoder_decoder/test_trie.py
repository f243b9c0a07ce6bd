"""The trie knows all codes, who is below a node, and refuses codes that do not tell items apart."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tslrec.llm.encoder_decoder.shape import END
from tslrec.llm.encoder_decoder.trie import Trie, build_trie
from tslrec.system.errors import UserError

codes_of_items = st.lists(
    st.lists(st.integers(2, 6), max_size=4).map(lambda code: (*code, END)), min_size=1, max_size=40, unique=True
)


def paths(trie: Trie) -> dict[tuple[int, ...], int]:
    """The node of each prefix, by walking down."""
    found: dict[tuple[int, ...], int] = {(): 0}
    waiting: list[tuple[int, ...]] = [()]
    while waiting:
        prefix = waiting.pop()
        node = found[prefix]
        for child in range(int(trie.first_child_X[node]), int(trie.first_child_X[node + 1])):
            longer = (*prefix, int(trie.token_X[child]))
            assert longer not in found
            found[longer] = child
            waiting.append(longer)
    return found


@settings(max_examples=60, deadline=None)
@given(codes_of_items, st.data())
def test_nodes_are_the_prefixes_and_count_their_items(codes: list[tuple[int, ...]], data: st.DataObject) -> None:
    trie = build_trie([(), *codes])
    found = paths(trie)
    prefixes = {code[:length] for code in codes for length in range(len(code) + 1)}
    assert set(found) == prefixes
    assert len(trie.token_X) == len(prefixes)
    assert trie.num_items == len(codes)
    assert trie.depth == max(map(len, codes))
    some = st.lists(st.integers(1, len(codes)), max_size=12).map(lambda items: np.array(items, dtype=np.int64))
    seen = [data.draw(some), data.draw(some)]
    lookup = trie.seen(seen)
    for prefix, node in found.items():
        below = {i + 1 for i, code in enumerate(codes) if code[: len(prefix)] == prefix}
        assert int(trie.num_leaves_X[node]) == len(below)
        for user, items in enumerate(seen):
            num_seen = trie.num_seen(lookup, torch.tensor(user), torch.tensor(node))
            assert int(num_seen) == len(below & set(items.tolist()))
        item = codes.index(prefix) + 1 if prefix in codes else 0
        assert int(trie.item_X[node]) == item


@pytest.mark.parametrize(
    ("codes", "named"),
    [
        ([(5, END), (4, END), (5, END)], "items 1 and 3 "),
        ([(4, END), (4, END, 7)], "items 1 and 2 "),
        ([(9, END), (3,), (3, 4, END)], "items 2 and 3 "),
    ],
)
def test_codes_that_do_not_tell_items_apart_are_refused(codes: list[tuple[int, ...]], named: str) -> None:
    with pytest.raises(UserError, match=named) as refused:
        build_trie([(), *codes])
    assert len(str(refused.value)) <= 300
    assert "\n" not in str(refused.value)


def test_no_items_is_an_error() -> None:
    with pytest.raises(ValueError, match="one item"):
        build_trie([()])
