"""The graph gives what PyTorch gives, for every backbone."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from support.random_recommenders import (
    ITEMS,
    MAX_LEN,
    MODELS,
    SIZE,
    assert_best,
    encoder_of,
    engines,
    random_batch,
    random_recommender,
)
from tslrec.models.backbones.base import Backbone
from tslrec.models.item_embedding import FixedTable
from tslrec.serving.engine import Batch, Floats, Ids
from tslrec.serving.onnx.encoder import encoder_graph
from tslrec.serving.onnx.engine import OnnxEngine
from tslrec.serving.onnx.graph import recommender_graph
from tslrec.serving.onnx.head import OPSET
from tslrec.serving.torch_engine import TorchEngine
from tslrec.stages.restored import of_backbone
from tslrec.system.errors import UserError

ALL = np.arange(ITEMS + 1)
pytestmark = pytest.mark.slow
"""torch's exporter takes seconds for each backbone."""
every_backbone = pytest.mark.parametrize("name", MODELS)
candidate_sets = st.one_of(
    st.none(),
    st.sets(st.integers(1, ITEMS), min_size=1, max_size=ITEMS).map(lambda chosen: np.array(sorted(chosen))),
)


@every_backbone
@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    seed=st.integers(0, 2**32 - 1),
    size=st.sampled_from([1, 2, 7, 33]),
    seen=st.sampled_from([0, 1, 5, 60]),
    length=st.integers(1, ITEMS),
    candidates_C=candidate_sets,
)
def test_lists_are_those_of_pytorch(
    name: str, seed: int, size: int, seen: int, length: int, candidates_C: Ids | None
) -> None:
    reference, engine, _ = engines(name)
    batch = random_batch(seed, size, seen=seen)
    ids_BK, scores_BK = engine.best_items(batch, length, candidates_C)
    assert ids_BK.shape == scores_BK.shape == (size, length)
    assert (ids_BK.dtype, scores_BK.dtype) == (np.int64, np.float32)
    assert_best(ids_BK, scores_BK, reference.scores(batch, ALL), batch, candidates_C)
    expected_BK, _ = reference.best_items(batch, length, candidates_C)
    # Random scores have no ties, and rounding swaps few items.
    assert (ids_BK == expected_BK).mean() > 0.9


@every_backbone
def test_every_length_gives_the_user_vectors_of_pytorch(name: str) -> None:
    reference, engine, _ = engines(name)
    for length in range(1, MAX_LEN + 1):
        for size in (1, 3):
            batch = random_batch(length, size, max_len=length)
            expected_BE = reference.user_vectors(batch)
            np.testing.assert_allclose(engine.user_vectors(batch), expected_BE, atol=1e-5 * np.abs(expected_BE).max())


@every_backbone
def test_scores_of_some_items_are_those_of_pytorch(name: str) -> None:
    reference, engine, _ = engines(name)
    batch, some = random_batch(0, 5), np.array([7, 3, 40])
    expected_BC = reference.scores(batch, some)
    np.testing.assert_allclose(engine.scores(batch, some), expected_BC, atol=1e-5 * np.abs(expected_BC).max())
    np.testing.assert_array_equal(engine.item_vectors(), reference.item_vectors())


@every_backbone
def test_int8_scores_are_near_those_of_pytorch(name: str) -> None:
    reference, _, small = engines(name)
    batch = random_batch(1, 20)
    expected_BI = reference.scores(batch, ALL)
    ids_BK, scores_BK = small.best_items(batch, ITEMS, None)
    found = ids_BK > 0
    difference = np.abs(scores_BK - np.take_along_axis(expected_BI, ids_BK, axis=1))[found]
    assert difference.max() < 0.05 * np.abs(expected_BI).max()
    # The order is that of its own scores, so the same brute force holds with a wider tolerance.
    assert_best(ids_BK, scores_BK, expected_BI, batch, None, tolerance=0.1)


@every_backbone
def test_int8_does_not_depend_on_the_others_of_a_batch(name: str) -> None:
    small = engines(name)[2]
    batch = random_batch(2, 6, seen=0)
    together, _ = small.best_items(batch, 10, None)
    for row in range(6):
        alone = Batch(batch.items_BL[[row]], batch.lengths_B[[row]], batch.seen_rows_S, batch.seen_items_S)
        np.testing.assert_array_equal(small.best_items(alone, 10, None)[0][0], together[row])


@every_backbone
def test_the_graph_is_a_sound_one_of_the_stated_opset(name: str) -> None:
    graph = recommender_graph(encoder_of(name)[0], random_recommender(name).output_IE.numpy())
    onnx.checker.check_model(graph, full_check=True)
    assert [(each.domain, each.version) for each in graph.opset_import] == [("", OPSET)]
    assert [each.name for each in graph.graph.input] == ["items", "seen", "candidates", "k"]
    assert {each.name for each in graph.graph.output} == {"ids", "scores", "user_vectors"}
    assert b"site-packages" not in graph.SerializeToString()


def test_only_a_backbone_that_counts_its_operations_by_length_is_padded() -> None:
    assert {name for name in MODELS if encoder_of(name)[1]} == {"caser", "caser, its authors' output"}


def test_a_table_that_is_read_twice_is_held_once() -> None:
    """Tied: by the look-up and by the head. A table of their own: twice."""
    tables = {}
    for name in ("sasrec", "sasrec, own output"):
        graph = recommender_graph(encoder_of(name)[0], random_recommender(name).output_IE.numpy())
        tables[name] = sum(list(each.dims) == [ITEMS + 1, SIZE] for each in graph.graph.initializer)
    assert tables == {"sasrec": 1, "sasrec, own output": 2}


def test_of_equal_scores_the_lower_item_is_first() -> None:
    table_ID = torch.ones(201, SIZE)
    backbone = random_recommender("sasrec").backbone
    assert backbone is not None
    engine = OnnxEngine(
        recommender_graph(encoder_of("sasrec")[0], table_ID.numpy()).SerializeToString(), table_ID.numpy(), MAX_LEN
    )
    batch = Batch(np.array([[5, 6]]), np.array([2]), np.array([0, 0]), np.array([1, 4]))
    assert engine.best_items(batch, 5, None)[0].tolist() == [[2, 3, 5, 6, 7]]
    assert engine.best_items(batch, 3, np.array([4, 100, 200]))[0].tolist() == [[100, 200, 0]]


def test_a_long_history_that_repeats_its_items_takes_no_more_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = engines("sasrec")[1]
    given = random_batch(5, 3, seen=4)
    times = 10_000
    repeated = given._replace(
        seen_rows_S=np.repeat(given.seen_rows_S, times), seen_items_S=np.repeat(given.seen_items_S, times)
    )
    expected = engine.best_items(given, 10, None)
    widths: list[int] = []
    run = engine.run

    def measured(items_NL: Ids, seen_NS: Ids, candidates_C: Ids, length: int) -> tuple[Ids, Floats, Floats]:
        widths.append(seen_NS.shape[1])
        return run(items_NL, seen_NS, candidates_C, length)

    monkeypatch.setattr(engine, "run", measured)
    for found, wanted in zip(engine.best_items(repeated, 10, None), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert max(widths) <= 4


def test_candidates_may_come_in_any_order() -> None:
    engine = engines("sasrec")[1]
    batch, some = random_batch(3, 4), np.array([3, 8, 21, 33])
    for length in (2, 10):
        for found, expected in zip(
            engine.best_items(batch, length, some[::-1].copy()), engine.best_items(batch, length, some), strict=True
        ):
            np.testing.assert_array_equal(found, expected)


class Mean(Backbone):
    """A backbone that is not one of this package: the mean of the item vectors, with an output table of its own."""

    def __init__(self, item_embedding: FixedTable) -> None:
        super().__init__(item_embedding, MAX_LEN)
        self.linear = nn.Linear(SIZE, SIZE)

    def output_table(self, table_ID: Tensor) -> Tensor:
        return 2 * table_ID

    def forward(self, items_BL: Tensor, lengths_B: Tensor, users_B: Tensor, table_ID: Tensor | None = None) -> Tensor:
        return self.linear(self.embed(items_BL, table_ID).sum(dim=1) / lengths_B[:, None])


def test_a_backbone_of_another_package_is_exported() -> None:
    table_ID = torch.randn(ITEMS + 1, SIZE)
    table_ID[0] = 0
    restored = of_backbone(Mean(FixedTable(table_ID)), table_ID)
    assert restored.backbone is not None
    encoder, _ = encoder_graph(restored.backbone)
    table_IE = restored.output_IE.numpy()
    engine = OnnxEngine(recommender_graph(encoder, table_IE).SerializeToString(), table_IE, MAX_LEN)
    batch = random_batch(0, 5)
    assert_best(*engine.best_items(batch, 10, None), TorchEngine(restored).scores(batch, ALL), batch, None)


class Random(Mean):
    """A backbone that gives other numbers each time."""

    def forward(self, items_BL: Tensor, lengths_B: Tensor, users_B: Tensor, table_ID: Tensor | None = None) -> Tensor:
        return super().forward(items_BL, lengths_B, users_B, table_ID) + torch.randn(len(items_BL), SIZE)


def test_a_backbone_whose_graph_gives_other_vectors_is_refused() -> None:
    with pytest.raises(UserError, match=r"Random: no ONNX graph gives its user vectors .*; export without --onnx"):
        encoder_graph(Random(FixedTable(torch.randn(ITEMS + 1, SIZE))).eval())


def test_exporting_is_quiet_and_leaves_the_backbone_as_it_was(capfd: pytest.CaptureFixture[str]) -> None:
    restored = random_recommender("gru4rec")
    assert restored.backbone is not None
    before = TorchEngine(restored).user_vectors(random_batch(0, 3))
    encoder_graph(restored.backbone)
    assert capfd.readouterr() == ("", "")
    np.testing.assert_array_equal(TorchEngine(restored).user_vectors(random_batch(0, 3)), before)
