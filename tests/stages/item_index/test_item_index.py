"""The item index: codes are unique whatever the data, held-out items leak nothing, and the stage runs or refuses."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array

from support.in_process import train_here
from support.interactions import make_interactions
from support.runs import SMALL
from tslrec.config import Config
from tslrec.data.interactions import Interactions
from tslrec.settings.rivals import ItemIndexConfig
from tslrec.stages.item_index.codes import ItemIndex, index_of_codes, read_item_index, write_item_index
from tslrec.stages.item_index.collaborative import DEEPEST, collaborative_tree
from tslrec.stages.item_index.number_pieces import NUMBER_PIECES, pieces_of_number
from tslrec.stages.item_index.spectral import spectral_labels
from tslrec.stages.item_index.stage import make_item_index
from tslrec.stages.key_settings import item_index_settings
from tslrec.stages.registry import find_stage
from tslrec.system.errors import UserError

KINDS = ("sequential", "random", "collaborative")


def random_market(seed: int, num_users: int = 40, num_items: int = 100) -> Interactions:
    draw = np.random.default_rng(seed)
    sequences = [draw.integers(1, num_items + 1, draw.integers(1, 12)).tolist() for _ in range(num_users)]
    return make_interactions(sequences, num_items)


SEQUENCES = st.lists(st.lists(st.integers(1, 25), min_size=1, max_size=9), min_size=1, max_size=12)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    sequences=SEQUENCES,
    kind=st.sampled_from(KINDS),
    clusters=st.integers(2, 5),
    leaf=st.integers(2, 8),
    counted=st.sampled_from(["pairs", "rarer_order"]),
)
def test_codes_are_unique_and_leaves_small_whatever_the_data(
    sequences: list[list[int]], kind: str, clusters: int, leaf: int, counted: str
) -> None:
    data = make_interactions(sequences, 25)
    config = ItemIndexConfig(kind=kind, num_clusters=min(clusters, leaf), leaf_size=leaf, counted=counted)
    index, _ = make_item_index(data, config, seed=3)
    assert index.num_items == 25
    assert len(set(index.texts[1:])) == 25
    if kind != "collaborative":
        return
    leaves = defaultdict(list)
    trained = np.flatnonzero(data.training_counts > 0)
    for item in trained.tolist():
        *path, place = index.item_codes[item]
        assert path
        leaves[tuple(path)].append(place)
    assert all(sorted(places) == list(range(len(places))) and len(places) <= leaf for places in leaves.values())
    assert {len(index.item_codes[item]) for item in range(1, 26) if data.training_counts[item] == 0} <= {1}


@pytest.mark.parametrize("kind", KINDS)
def test_who_took_which_held_out_item_changes_nothing(kind: str) -> None:
    data = random_market(1)
    users = data.evaluated_users
    held_out = np.stack([data.offsets[users + 1] - 2, data.offsets[users + 1] - 1])
    items = data.items.copy()
    items[held_out.ravel()] = np.random.default_rng(5).permutation(items[held_out.ravel()])
    others = Interactions(name=data.name, items=items, offsets=data.offsets, ids=data.ids)
    assert (data.training_counts[1:] == 0).sum() > 3
    config = ItemIndexConfig(kind=kind, num_clusters=3, leaf_size=6)
    assert make_item_index(data, config, 7)[0] == make_item_index(others, config, 7)[0]


def test_the_seed_orders_what_training_parts_do_not() -> None:
    data = random_market(2)
    never = np.flatnonzero(data.training_counts[1:] == 0) + 1
    first, second = (make_item_index(data, ItemIndexConfig(num_clusters=3, leaf_size=6), seed)[0] for seed in (0, 1))
    assert [first.item_codes[item] for item in never] != [second.item_codes[item] for item in never]
    trained = np.flatnonzero(data.training_counts > 0)
    assert [first.item_codes[item] for item in trained] == [second.item_codes[item] for item in trained]


def test_a_graph_that_no_clustering_splits_is_cut_into_consecutive_leaves() -> None:
    tree = collaborative_tree(csr_array((7, 7)), num_clusters=2, leaf_size=3, seed=0)
    assert tree.codes == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0)]
    assert (tree.splits, tree.cuts) == (1, 1)
    # Thirteen items are more than three groups of three: of groups of 5, 5 and 3 the first two are cut again.
    deeper = collaborative_tree(csr_array((13, 13)), num_clusters=2, leaf_size=3, seed=0).codes
    assert len(set(deeper)) == 13
    assert [len(code) for code in deeper] == [3] * 10 + [2] * 3


def test_clustering_ends_below_the_deepest_level() -> None:
    """Of a star, each clustering takes few items off."""
    size = 400
    star = np.zeros((size, size))
    star[0, 1:] = star[1:, 0] = 1
    tree = collaborative_tree(csr_array(star), num_clusters=2, leaf_size=4, seed=0)
    assert len(set(tree.codes)) == size
    # Three further levels hold four groups each, and so 256 items; one more holds the rest.
    assert max(map(len, tree.codes)) <= DEEPEST + 6


def test_with_more_components_than_clusters_the_largest_are_clusters() -> None:
    sizes = [2, 4, 2, 3, 5]
    adjacency = np.zeros((sum(sizes) + 1,) * 2)
    begin = 0
    for size in sizes:
        adjacency[begin : begin + size, begin : begin + size] = 1
        begin += size
    labels = spectral_labels(csr_array(adjacency), 3, seed=0)
    assert labels.tolist() == [2, 2, 1, 1, 1, 1, 2, 2, 2, 2, 2, 0, 0, 0, 0, 0, 2]
    as_many = spectral_labels(csr_array(adjacency), 5, seed=0)
    assert [len(set(as_many[part])) for part in np.split(np.arange(16), np.cumsum(sizes)[:-1])] == [1] * 5
    assert len(set(as_many.tolist())) == 5


def test_the_large_graphs_way_gives_the_same_labels() -> None:
    draw = np.random.default_rng(0)
    group = np.repeat(np.arange(4), 30)
    chance = np.where(group[:, None] == group, 0.4, 0.02)
    upper = np.triu(draw.random((120, 120)) < chance, 1)
    graph = csr_array((upper | upper.T).astype(float))
    dense, sparse = (spectral_labels(graph, 4, seed=0, dense_up_to=size) for size in (1000, 0))
    np.testing.assert_array_equal(dense, sparse)
    assert [len(set(dense[group == number].tolist())) for number in range(4)] == [1] * 4


def test_pieces_of_numbers() -> None:
    def text(number: int) -> str:
        return "".join(NUMBER_PIECES[piece] for piece in pieces_of_number(number))

    assert [text(number) for number in (0, 7, 10, 1001, 12345)] == ["0", "7", "10", "1001", "12345"]
    assert len({pieces_of_number(number) for number in range(3000)}) == 3000
    assert pieces_of_number(1001) == (10 + 10, 10 + 1)


def test_an_index_is_read_as_it_was_written(tmp_path: Path) -> None:
    index = index_of_codes([(), (2, 0), (1,), (2, 1)])
    write_item_index(index, tmp_path, "digest")
    assert read_item_index(tmp_path) == index
    assert index.texts == ("", "<CI2><CI0>", "<CI1>", "<CI2><CI1>")
    (tmp_path / "index_tokens.json").write_text(json.dumps(["<CI0>"]))
    with pytest.raises(UserError, match="not a readable item index"):
        read_item_index(tmp_path)
    (tmp_path / "index_tokens.json").unlink()
    with pytest.raises(UserError, match="not a readable item index"):
        read_item_index(tmp_path)


@pytest.mark.parametrize("codes", [[(), (1,), (1,)], [(), (0,), ()], [(0,), (1,)], []])
def test_an_index_without_unique_codes_is_none(codes: list[tuple[int, ...]]) -> None:
    with pytest.raises(ValueError, match="code"):
        ItemIndex(tuple(codes), ("<CI0>", "<CI1>"))


def test_the_key_holds_what_the_kind_reads() -> None:
    def settings_of(config: ItemIndexConfig) -> object:
        return item_index_settings(Config(item_index=config))["item_index"]

    assert settings_of(ItemIndexConfig(leaf_size=99)) == {"leaf_size": 99}
    assert settings_of(ItemIndexConfig("sequential", "short_first", leaf_size=99)) == {
        "kind": "sequential",
        "user_order": "short_first",
    }
    assert settings_of(ItemIndexConfig("random", "short_first", leaf_size=99)) == {"kind": "random"}
    stage = find_stage("item_index")
    assert stage is not None
    assert (stage.reads, stage.together) == (("data",), False)


INDEX_ALONE = ["method.name=index_alone", "method.stages=[item_index]", "item_index.leaf_size=8"]


@pytest.mark.slow
def test_the_stage_runs_and_is_reused(tmp_path: Path) -> None:
    words = [*SMALL, *INDEX_ALONE, "item_index.num_clusters=3"]
    first = train_here(*words, folder=tmp_path)
    assert first.code == 0, first.err
    folder = next((tmp_path / "artifacts").glob("item_index/*/manifest.json")).parent
    assert folder.name.startswith("synthetic-collaborative-")
    index = read_item_index(folder)
    assert index.num_items == 40
    assert "item_index: reused" in train_here(*words, folder=tmp_path).out


def test_more_clusters_than_tokens_are_refused_before_anything_is_computed(tmp_path: Path) -> None:
    refusal = train_here(*SMALL, *INDEX_ALONE, "item_index.num_clusters=9", folder=tmp_path).refusal
    assert "item_index.num_clusters=9: more than the 8 tokens of item_index.leaf_size" in refusal
    assert not (tmp_path / "artifacts" / "data").exists()
