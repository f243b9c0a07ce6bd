"""Finding the best of a million items: an HNSW graph beside scoring all of them.

  python benchmarks/index.py --items 1000000

The vectors are made: directions from a normal distribution whose variance falls from dimension to dimension, as in a
trained table, and norms that differ by a seventh. Requests come one at a time, with 50 seen items each. Ends with one
line per figure, `name value unit`. The machine should do nothing else.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import faiss
import numpy as np

from tslrec.serving import hnsw
from tslrec.serving.engine import Batch, Engine, Floats, Ids
from tslrec.serving.index import approximate, exact

SEEN = 50
LENGTH = 10


class MadeUsers:
    """An engine whose user vectors are made: the history's first item is the number of the user.

    Args:
        user_UE: user vectors.
        table_IE: item vectors; row 0 is padding.
    """

    name = "made"
    max_len = 1

    def __init__(self, user_UE: Floats, table_IE: Floats) -> None:
        self.user_UE, self.table_IE = user_UE, table_IE
        self.num_items = len(table_IE) - 1

    def best_items(self, batch: Batch, length: int, candidates_C: Ids | None) -> tuple[Ids, Floats]:
        scores_BI = self.user_vectors(batch) @ self.table_IE.T
        scores_BI[:, 0] = scores_BI[batch.seen_rows_S, batch.seen_items_S] = -np.inf
        best_BK = np.argpartition(-scores_BI, length, axis=1)[:, :length]
        found_BK = np.take_along_axis(scores_BI, best_BK, axis=1)
        order_BK = np.argsort(-found_BK, axis=1, kind="stable")
        return np.take_along_axis(best_BK, order_BK, axis=1), np.take_along_axis(found_BK, order_BK, axis=1)

    def scores(self, batch: Batch, candidates_C: Ids) -> Floats:
        return self.user_vectors(batch) @ self.table_IE[candidates_C].T

    def user_vectors(self, batch: Batch) -> Floats:
        return self.user_UE[batch.items_BL[:, 0]]

    def item_vectors(self) -> Floats:
        return self.table_IE


def made_vectors(rows: int, size: int, generator: np.random.Generator) -> Floats:
    """Vectors like those of a trained table, `[rows, size]`."""
    spread = (1 + np.arange(size)) ** -0.25
    vectors = generator.standard_normal((rows, size), dtype=np.float32) * spread.astype(np.float32)
    norms = generator.normal(1, 1 / 7, rows).clip(0.5, 2).astype(np.float32)
    made: Floats = vectors / np.linalg.norm(vectors, axis=1, keepdims=True) * norms[:, None]
    return made


def main(words: Sequence[str]) -> None:
    """Builds the graph, and measures searches."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=20_000, metavar="N", help="default 20,000")
    parser.add_argument("--size", type=int, default=64, metavar="E", help="size of a vector; default 64")
    parser.add_argument("--requests", type=int, default=1_000, metavar="N", help="default 1,000")
    arguments = parser.parse_args(words)
    generator = np.random.default_rng(0)
    table_IE = made_vectors(arguments.items + 1, arguments.size, generator)
    user_UE = made_vectors(arguments.requests, arguments.size, generator)
    engine = MadeUsers(user_UE, table_IE)
    requests = [request(user, arguments.items, generator) for user in range(arguments.requests)]
    print(
        f"faiss {faiss.__version__}, numpy {np.__version__}, {faiss.omp_get_max_threads()} threads of", os.cpu_count()
    )
    print(f"{arguments.items:,} items, E = {arguments.size}, M = {hnsw.M}, ef {hnsw.EF_CONSTRUCTION}, {hnsw.EF_SEARCH}")

    began = time.perf_counter()
    index = hnsw.build(table_IE[1:])
    show("index_build", time.perf_counter() - began, "s")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "index.safetensors"
        hnsw.write_graph(index, path)
        show("index_file", path.stat().st_size / 2**20, "MiB")
        del index
        began = time.perf_counter()
        found = approximate(engine, path)
        show("index_load", time.perf_counter() - began, "s")
    right = [engine.best_items(each, LENGTH, None)[0][0] for each in requests]
    for name, each in (("hnsw", found), ("flat", exact(engine))):
        measure(name, each, requests, right)


def request(user: int, items: int, generator: np.random.Generator) -> Batch:
    """A batch of one user with seen items."""
    seen = np.sort(generator.choice(items, SEEN, replace=False)) + 1
    return Batch(np.array([[user]]), np.array([1]), np.zeros(SEEN, dtype=np.int64), seen)


def measure(name: str, engine: Engine, requests: Sequence[Batch], right: Sequence[Ids]) -> None:
    """Prints recall@10 and the time of single requests."""
    engine.best_items(requests[0], LENGTH, None)
    seconds, hits = [], 0
    for batch, best in zip(requests, right, strict=True):
        began = time.perf_counter()
        ids, _ = engine.best_items(batch, LENGTH, None)
        seconds.append(time.perf_counter() - began)
        hits += len(np.intersect1d(ids[0], best))
    show(f"index_{name}_recall@{LENGTH}", hits / (LENGTH * len(requests)), "share")
    show(f"index_{name}_p50", 1e3 * float(np.median(seconds)), "ms")
    show(f"index_{name}_p99", 1e3 * float(np.quantile(seconds, 0.99)), "ms")


def show(name: str, value: float, unit: str) -> None:
    """Prints a figure."""
    print(name, f"{value:.4g}", unit, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
