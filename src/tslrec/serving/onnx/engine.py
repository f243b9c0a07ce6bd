"""Recommends with an ONNX graph: NumPy and onnxruntime, no torch.

Shapes: B users, N of them that are computed together, I items (row 0 of a table is padding), K places of a list, S
(user, item) pairs of histories or the places for a user's seen items, C candidates, E size of a user vector.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tslrec.serving.engine import Batch, Floats, Ids
from tslrec.serving.folder import ENCODER, FACTS, ITEM_TABLE, ONNX, ONNX_INT8, OUTPUT_TABLE
from tslrec.serving.onnx.head import CANDIDATES, IDS, ITEMS, LENGTH, SCORES, SEEN, VECTORS
from tslrec.serving.onnx.session import open_session
from tslrec.system.errors import UserError
from tslrec.system.safetensors_io import load_arrays

BLOCK_BYTES = 64 * 2**20
"""Bytes of scores and of seen items that are held at a time."""
NO_ITEMS = np.empty(0, dtype=np.int64)
TABLE_FILES = (ITEM_TABLE, ENCODER, OUTPUT_TABLE)
"""Files that may hold the table that scores the items."""


class OnnxEngine:
    """An engine around a graph; see `tslrec.serving.engine.Engine`.

    Args:
        graph: the serialised graph, or its file.
        table_IE: the table that scores the items.
        max_len: the longest input, in items.
        threads: of one operator.
        name: for messages and facts.

    Raises:
        UserError: if a number of the table is not finite, or the graph is not a recommender's.
    """

    def __init__(
        self, graph: bytes | Path, table_IE: Floats, max_len: int, *, threads: int = 1, name: str = "onnxruntime"
    ) -> None:
        if not np.isfinite(table_IE).all():
            raise UserError("item table: numbers that are not finite (NaN); train or export again")
        self.name = name
        self.max_len = max_len
        self.num_items = len(table_IE) - 1
        self.table_IE = table_IE
        self.session = open_session(graph, threads=threads)
        inputs = {each.name for each in self.session.get_inputs()}
        outputs = {each.name for each in self.session.get_outputs()}
        if inputs != {ITEMS, SEEN, CANDIDATES, LENGTH} or not outputs >= {IDS, SCORES, VECTORS}:
            raise UserError(
                f"graph: has the inputs {', '.join(sorted(inputs))}, which are not a recommender's; export again"
            )

    def best_items(self, batch: Batch, length: int, candidates_C: Ids | None) -> tuple[Ids, Floats]:
        size = len(batch.items_BL)
        ids_BK = np.empty((size, length), dtype=np.int64)
        scores_BK = np.empty((size, length), dtype=np.float32)
        # A history may name an item many times; the graph need not.
        pairs_S = np.unique(batch.seen_rows_S * (self.num_items + 1) + batch.seen_items_S)
        rows_S, items_S = np.divmod(pairs_S, self.num_items + 1)
        candidates_C = NO_ITEMS if candidates_C is None else candidates_C
        longest = int(np.bincount(rows_S).max(initial=0))
        for rows in blocks(size, max(1, BLOCK_BYTES // (4 * (self.num_items + 1) + 8 * longest))):
            inside = slice(*np.searchsorted(rows_S, (rows.start, rows.stop)))
            seen_NS = padded_rows(rows_S[inside] - rows.start, items_S[inside], rows.stop - rows.start)
            ids_BK[rows], scores_BK[rows], _ = self.run(batch.items_BL[rows], seen_NS, candidates_C, length)
        return ids_BK, scores_BK

    def scores(self, batch: Batch, candidates_C: Ids) -> Floats:
        return self.user_vectors(batch) @ self.table_IE[candidates_C].T

    def user_vectors(self, batch: Batch) -> Floats:
        # A list of no places: the graph then scores nothing.
        return self.run(batch.items_BL, np.empty((len(batch.items_BL), 0), dtype=np.int64), NO_ITEMS, 0)[2]

    def item_vectors(self) -> Floats:
        return self.table_IE

    def run(self, items_NL: Ids, seen_NS: Ids, candidates_C: Ids, length: int) -> tuple[Ids, Floats, Floats]:
        """One request to the graph.

        Returns:
            Ids `[N, K]`, scores `[N, K]` and user vectors `[N, E]`.

        Raises:
            UserError: if a user vector is not finite.
        """
        given = {ITEMS: items_NL, SEEN: seen_NS, CANDIDATES: candidates_C, LENGTH: np.array([length], dtype=np.int64)}
        ids_NK, scores_NK, user_NE = self.session.run([IDS, SCORES, VECTORS], given)
        if not np.isfinite(user_NE).all():
            raise UserError("a user vector is not finite (NaN); look at the weights, or train again")
        return ids_NK, scores_NK, user_NE


def load_onnx(folder: Path, facts: Mapping[str, Any], *, threads: int = 1, int8: bool = False) -> OnnxEngine:
    """Loads the graph of an exported folder.

    Args:
        folder: of the export, its files checked.
        facts: its `recommender.json`.
        threads: of one operator.
        int8: load the int8 graph.

    Raises:
        UserError: if the folder has no such graph, or a file does not fit.
    """
    name, option = (ONNX_INT8, "--int8") if int8 else (ONNX, "--onnx")
    if name not in facts["files"]:
        raise UserError(f"{folder}: has no {name}; export the run again, with {option}")
    try:
        table = facts["onnx"]["table"]
        file, array, max_len = str(table["file"]), str(table["array"]), int(facts["max_len"])
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{folder / FACTS}: describes no ONNX graph ({error!r}); export again") from error
    if file not in TABLE_FILES or file not in facts["files"]:
        raise UserError(f"{folder / FACTS}: names the table {file}, which is none of its files; do not use it")
    arrays = load_arrays(folder / file)
    if array not in arrays or arrays[array].ndim != 2:
        raise UserError(f"{folder / file}: has no table {array}; export again")
    table_IE = np.ascontiguousarray(arrays[array], dtype=np.float32)
    return OnnxEngine(
        folder / name, table_IE, max_len, threads=threads, name="onnxruntime-int8" if int8 else "onnxruntime"
    )


def padded_rows(rows_S: Ids, items_S: Ids, size: int) -> Ids:
    """Pairs of row and item as one row per user, padded with 0 to the most that a user has.

    Args:
        rows_S: not falling.
        items_S: item ids.
        size: B.
    """
    counts_B = np.bincount(rows_S, minlength=size)
    padded_BS = np.zeros((size, int(counts_B.max(initial=0))), dtype=np.int64)
    padded_BS[rows_S, np.arange(len(rows_S)) - np.repeat(np.cumsum(counts_B) - counts_B, counts_B)] = items_S
    return padded_BS


def blocks(size: int, rows: int) -> Iterator[slice]:
    """Slices of `rows` users that together are all of `size`."""
    for begin in range(0, size, rows):
        yield slice(begin, min(size, begin + rows))
