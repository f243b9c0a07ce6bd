"""Small untrained recommenders of every backbone, their ONNX graphs, and batches of random histories."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import onnx
import torch
import yaml

from support.checkout import CHECKOUT
from tslrec.models.item_embedding import FixedTable
from tslrec.serving.engine import Batch, Ids
from tslrec.serving.onnx.encoder import encoder_graph
from tslrec.serving.onnx.engine import OnnxEngine, padded_rows
from tslrec.serving.onnx.graph import recommender_graph
from tslrec.serving.onnx.quantise import int8_graph
from tslrec.serving.torch_engine import TorchEngine
from tslrec.stages.building import build_backbone
from tslrec.stages.restored import Restored, of_backbone

ITEMS, SIZE, MAX_LEN = 40, 16, 9

DEFAULTS: dict[str, dict[str, Any]] = {
    path.stem: yaml.safe_load(path.read_text())
    for path in sorted((CHECKOUT / "configs" / "model").glob("*.yaml"))
    # It has a vector per user, so a run of it gives no recommender (`tests/serving/test_finished_runs.py`).
    if path.stem != "fpmc"
}
MODELS = {
    **DEFAULTS,
    "sasrec, norm first": {**DEFAULTS["sasrec"], "norm_first": True},
    "sasrec, own output": {**DEFAULTS["sasrec"], "own_output": True},
    "caser, its authors' output": {**DEFAULTS["caser"], "recent_first": True, "own_output": True},
    "gru4rec, two layers": {**DEFAULTS["gru4rec"], "num_layers": 2},
    "bert4rec, RecBole's rules": {**DEFAULTS["bert4rec"], "recbole_rules": True},
}
"""Every backbone that has a YAML file and recommends to any user, and its variants."""


@lru_cache
def random_recommender(name: str) -> Restored:
    """A recommender with random weights and a random item table."""
    torch.manual_seed(0)
    table_ID = torch.randn(ITEMS + 1, SIZE)
    table_ID[0] = 0
    backbone = build_backbone(MODELS[name], FixedTable(table_ID), num_users=1, max_len=MAX_LEN)
    return of_backbone(backbone, table_ID)


@lru_cache
def encoder_of(name: str) -> tuple[onnx.ModelProto, bool]:
    """The encoder's graph, and whether it pads its input."""
    backbone = random_recommender(name).backbone
    assert backbone is not None
    return encoder_graph(backbone)


@lru_cache
def engines(name: str) -> tuple[TorchEngine, OnnxEngine, OnnxEngine]:
    """The recommender with PyTorch, with onnxruntime, and with onnxruntime in int8."""
    restored, (encoder, _) = random_recommender(name), encoder_of(name)
    table_IE = restored.output_IE.numpy()
    graphs = [make(encoder, table_IE).SerializeToString() for make in (recommender_graph, int8_graph)]
    full, small = (OnnxEngine(graph, table_IE, MAX_LEN) for graph in graphs)
    return TorchEngine(restored), full, small


def random_batch(seed: int, size: int, *, seen: int = 5, items: int = ITEMS, max_len: int = MAX_LEN) -> Batch:
    """Histories of random lengths from 1 to `max_len`, and up to `seen` items of each user that must not be listed."""
    generator = np.random.default_rng(seed)
    lengths_B = generator.integers(1, max_len + 1, size)
    items_BL = generator.integers(1, items + 1, (size, int(lengths_B.max())))
    items_BL[np.arange(items_BL.shape[1]) >= lengths_B[:, None]] = 0
    counts_B = generator.integers(0, seen + 1, size)
    rows_S = np.repeat(np.arange(size), counts_B)
    return Batch(items_BL, lengths_B, rows_S, generator.integers(1, items + 1, len(rows_S)))


def assert_best(
    ids_BK: Ids, found_BK: Any, scores_BI: Any, batch: Batch, candidates_C: Ids | None, tolerance: float = 1e-5
) -> None:
    """Lists are the best items by brute force, up to items whose scores are equal but for rounding.

    Args:
        ids_BK: the lists.
        found_BK: their scores.
        scores_BI: the right scores of all items; column 0 is padding.
        batch: whose seen items must not be listed.
        candidates_C: alone may be listed; None: all.
        tolerance: share of a user's largest score of all that is rounding.
    """
    allowed_BI = np.zeros(scores_BI.shape, dtype=bool)
    allowed_BI[:, 1:] = True
    if candidates_C is not None:
        allowed_BI &= np.isin(np.arange(scores_BI.shape[1]), candidates_C)
    seen_BS = padded_rows(batch.seen_rows_S, batch.seen_items_S, len(batch.items_BL))
    np.put_along_axis(allowed_BI, seen_BS, False, axis=1)
    masked_BI = np.where(allowed_BI, scores_BI, -np.inf)
    for ids_K, found_K, allowed_I, masked_I, scores_I in zip(
        ids_BK, found_BK, allowed_BI, masked_BI, scores_BI, strict=True
    ):
        filled = min(len(ids_K), int(allowed_I.sum()))
        assert (ids_K[filled:] == 0).all()
        assert (found_K[filled:] == -np.inf).all()
        listed = ids_K[:filled]
        assert len(set(listed)) == filled
        assert allowed_I[listed].all()
        expected = -np.sort(-masked_I)[:filled]
        rounding = tolerance * float(np.abs(scores_I).max())
        np.testing.assert_allclose(masked_I[listed], expected, rtol=0, atol=rounding)
        np.testing.assert_allclose(found_K[:filled], expected, rtol=0, atol=rounding)
