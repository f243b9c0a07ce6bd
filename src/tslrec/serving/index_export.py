"""Adds an HNSW graph to an exported folder, and measures how many of the best items it finds.

Shapes: U users, B users of a batch, K places of a list.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import faiss
import numpy as np

from tslrec.data.interactions import Interactions
from tslrec.serving import hnsw
from tslrec.serving.engine import Engine
from tslrec.serving.folder import INDEX
from tslrec.serving.histories import Histories
from tslrec.serving.index import approximate
from tslrec.serving.onnx.samples import histories_of, spread
from tslrec.serving.recommender import BATCH_SIZE
from tslrec.serving.torch_engine import TorchEngine
from tslrec.stages.restored import Restored

MEASURED_USERS = 1_000
CUTOFF = 10
"""K."""


class IndexExtra:
    """Adds `index.safetensors` to a folder in the making; an `Extra` of `tslrec.serving.export`.

    Args:
        interactions: the run's data set, whose histories the recall is measured with.
    """

    def __init__(self, interactions: Interactions) -> None:
        self.interactions = interactions

    def __call__(self, folder: Path, facts: dict[str, Any], restored: Restored) -> None:
        """Writes the graph, and what was measured into `facts`."""
        inner = TorchEngine(restored)
        vectors_IE = np.ascontiguousarray(inner.item_vectors()[1:])
        hnsw.write_graph(hnsw.build(vectors_IE), folder / INDEX)
        users = spread(np.arange(self.interactions.num_users), MEASURED_USERS)
        histories = histories_of(self.interactions, users, without_test=False)
        facts["index"] = {
            "kind": "hnsw",
            "neighbours": hnsw.M,
            "ef_construction": hnsw.EF_CONSTRUCTION,
            "ef_search": hnsw.EF_SEARCH,
            "faiss": faiss.__version__,
            "users": len(users),
            # What was written is read again: that is what will be used.
            f"recall@{CUTOFF}": recall(inner, approximate(inner, folder / INDEX), histories),
        }


def recall(exact: Engine, engine: Engine, histories: Histories) -> float:
    """The mean share of each user's K best items that an engine finds; the items of the history are left out.

    Args:
        exact: knows the best items.
        engine: finds items.
        histories: of the users.
    """
    length = min(CUTOFF, exact.num_items)
    found, wanted = 0, 0
    for _, batch in histories.batches(exact.max_len, BATCH_SIZE, filter_seen=True):
        best_BK, _ = exact.best_items(batch, length, None)
        ids_BK, _ = engine.best_items(batch, length, None)
        among_BK = (best_BK[:, :, None] == ids_BK[:, None]).any(axis=2) & (best_BK > 0)
        found, wanted = found + int(among_BK.sum()), wanted + int((best_BK > 0).sum())
    return found / max(1, wanted)
