"""What many tests need: a place for the data and the golden files, and a small generated data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from tslrec.interactions import IdMap, Interactions

CHECKOUT = Path(__file__).resolve().parent.parent


def make_interactions(sequences: Sequence[Sequence[int]], num_items: int | None = None) -> Interactions:
    """Interactions from item sequences written out, item ids from 1."""
    items = np.concatenate([np.asarray(sequence, dtype=np.int32) for sequence in sequences])
    offsets = np.concatenate([[0], np.cumsum([len(sequence) for sequence in sequences])]).astype(np.int64)
    num_items = num_items or int(items.max())
    ids = IdMap(
        users=tuple(f"u{user}" for user in range(len(sequences))),
        items=("", *(f"i{item}" for item in range(1, num_items + 1))),
    )
    return Interactions(name="written", items=items, offsets=offsets, ids=ids)


@contextmanager
def torch_threads(count: int) -> Iterator[None]:
    """So many threads within it, and still so many at its end."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
        assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(before)


@pytest.fixture(scope="session")
def checkout() -> Path:
    """The project's folder."""
    return CHECKOUT


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run of all stages, to be copied."""
    from in_process import RUN, train_here

    folder = tmp_path_factory.mktemp("finished")
    ended = train_here(*RUN, folder=folder)
    assert ended.code == 0, ended.err
    return folder
