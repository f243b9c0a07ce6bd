"""The item index equals the public one, OpenP5's, in every order, count and code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.sparse import csr_array

from support.checkout import golden_folder
from support.interactions import make_interactions
from tslrec.data.interactions import Interactions
from tslrec.stages.item_index.co_occurrences import all_pairs, rarer_orders
from tslrec.stages.item_index.codes import index_of_codes
from tslrec.stages.item_index.collaborative import codes_by_item, collaborative_tree
from tslrec.stages.item_index.orders import (
    FIRST_NUMBER,
    in_first_appearance,
    never_trained,
    numbers_in_order,
    trained_items,
    user_order,
)
from tslrec.stages.item_index.spectral import spectral_labels

GOLDEN = golden_folder() / "rivals"
FILES = ("P5_index.npz", "P5_index_isolated.npz")
pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the reference files are not beside the checkout")


class Reference:
    """A reference file, and its data set with items numbered 1…I by rising raw id.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.arrays: dict[str, NDArray[Any]] = dict(np.load(path))
        self.meta = json.loads(str(self.arrays["meta"]))
        sequences = zip(self["seq"], self["seq_len"], strict=True)
        self.interactions: Interactions = make_interactions(
            [self.numbered(sequence[:length]).tolist() for sequence, length in sequences], len(self["items"])
        )

    def __getitem__(self, name: str) -> NDArray[Any]:
        return self.arrays[name]

    def numbered(self, raw_ids: NDArray[Any]) -> NDArray[np.int64]:
        return 1 + np.searchsorted(self["items"], raw_ids)

    @property
    def held_out_first(self) -> NDArray[np.int64]:
        """The never-trained items in the public code's order: that of their appearance as held-out items."""
        items = self.interactions.items[~self.interactions.is_training_N]
        order = in_first_appearance(items)
        return order[self.interactions.training_counts[order] == 0]


@pytest.fixture(params=FILES)
def reference(request: pytest.FixtureRequest) -> Reference:
    return Reference(GOLDEN / request.param)


def test_sequential_numbers(reference: Reference) -> None:
    data = reference.interactions
    for name, order in (("sequential", "file"), ("short2long", "short_first"), ("long2short", "long_first")):
        users_U = user_order(data, order)
        lengths_U, starts_U = data.lengths[users_U], data.offsets[users_U]
        held_out = np.stack([data.items[starts_U + lengths_U - back] for back in (2, 1)], axis=1).ravel()
        others = in_first_appearance(held_out)
        others = others[data.training_counts[others] == 0]
        numbers_I = numbers_in_order(np.concatenate([trained_items(data, users_U), others]))
        np.testing.assert_array_equal(numbers_I[1:], reference[f"index_{name}"])


def test_random_numbers_are_the_same_numbers(reference: Reference) -> None:
    order = 1 + np.argsort(reference["index_random"])
    np.testing.assert_array_equal(numbers_in_order(order)[1:], reference["index_random"])
    assert reference["index_random"].min() == FIRST_NUMBER


def test_co_occurrences(reference: Reference) -> None:
    data = reference.interactions
    order_R = trained_items(data, user_order(data, "file"))
    np.testing.assert_array_equal(order_R, reference.numbered(reference["item_order"]))
    np.testing.assert_array_equal(all_pairs(data, order_R).toarray(), reference["adjacency"])
    np.testing.assert_array_equal(rarer_orders(data, order_R).toarray(), reference["adjacency_llm_recsys_id"])


@pytest.mark.parametrize("dense_up_to", [10**6, 0])
def test_each_split(reference: Reference, dense_up_to: int) -> None:
    """By all eigenvalues at once, and by the iteration for large graphs."""
    clusters, adjacency = reference.meta["cluster_num"], csr_array(reference["adjacency"].astype(float))
    for number in range(len(reference.meta["splits"])):
        members, labels = reference[f"split{number}/members"], reference[f"split{number}/labels"]
        found = spectral_labels(adjacency[members][:, members], clusters, 0, dense_up_to=dense_up_to)
        np.testing.assert_array_equal(found, labels)


def test_codes(reference: Reference) -> None:
    data, meta = reference.interactions, reference.meta
    order_R, others = reference.numbered(reference["item_order"]), reference.numbered(reference["unseen"])
    np.testing.assert_array_equal(others, reference.held_out_first)
    tree = collaborative_tree(
        csr_array(reference["adjacency"].astype(float)), meta["cluster_num"], meta["token_size"], 0
    )
    assert tree.splits == len(meta["splits"])
    assert tree.cuts == 0
    index = index_of_codes(codes_by_item(data.num_items, order_R, tree, others))
    for row, (code, length) in enumerate(zip(reference["code"], reference["code_len"], strict=True), 1):
        assert index.item_codes[row] == tuple(code[:length].tolist())
    raw_ids = reference["items"].tolist()
    assert {str(raw): text for raw, text in zip(raw_ids, index.texts[1:], strict=True)} == meta["index"]


def test_ours_numbers_the_same_never_trained_items_in_another_order(reference: Reference) -> None:
    ours = never_trained(reference.interactions, seed=0)
    assert sorted(ours.tolist()) == sorted(reference.numbered(reference["unseen"]).tolist())
