"""Both sides of the comparison with the authors' LRURec train on the same windows."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from rivals.lru_windows import Windows, load_windows, save_windows
from rivals.side_lrurec import LeftPadded, authors_model, time_steps
from rivals.side_tslrec_lru import interactions_of, measure
from rivals_lru import windows_of
from support.interactions import make_interactions
from tslrec.data.windows import all_windows

INTERACTIONS = make_interactions([[1, 2, 3, 4, 5, 6, 7], [3, 1, 2, 6], [5, 5, 1], [4, 2, 7, 1, 3]])
"""Training parts of 5, 2, 1 and 3 items."""
linux = pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="peak memory is read on Linux only")

STAND_IN = """
import torch

class LRURec(torch.nn.Module):
    def __init__(self, args):
        super().__init__()
        self.token = torch.nn.Embedding(args.num_items + 1, args.bert_hidden_units)
        self.bias = torch.nn.Parameter(torch.zeros(args.num_items + 1))

    def forward(self, x):
        return self.token(x) @ self.token.weight.T + self.bias
"""
"""In the place of the authors' file: the same names, and another model."""


def test_windows_are_the_last_items_of_the_training_parts(tmp_path: Path) -> None:
    windows = windows_of(INTERACTIONS, max_len=3)
    assert [each.tolist() for each in windows.split()] == [[2, 3, 4, 5], [3, 1], [4, 2, 7]]
    save_windows(windows, tmp_path / "windows.npz")
    loaded = load_windows(tmp_path / "windows.npz")
    assert loaded.max_len == 3
    assert loaded.num_items == 7
    assert all(map(np.array_equal, loaded.split(), windows.split()))


def test_the_authors_side_pads_on_the_left_and_has_the_last_items_as_labels() -> None:
    pairs = LeftPadded(windows_of(INTERACTIONS, max_len=3))
    found = [(items.tolist(), labels.tolist()) for items, labels in (pairs[number] for number in range(len(pairs)))]
    assert found == [([2, 3, 4], [3, 4, 5]), ([0, 0, 3], [0, 3, 1]), ([0, 4, 2], [4, 2, 7])]


def test_our_side_has_one_window_of_each_with_all_but_its_first_item_as_targets() -> None:
    windows = windows_of(INTERACTIONS, max_len=3)
    ours = all_windows(interactions_of(windows), 3)
    assert len(ours) == len(windows.lengths)
    assert ours.lengths.tolist() == (windows.lengths - 1).tolist()
    assert ours.num_targets == int((windows.lengths - 1).sum())


def test_the_authors_class_is_taken_from_a_checkout(tmp_path: Path) -> None:
    windows = windows_of(INTERACTIONS, max_len=3)
    with pytest.raises(SystemExit, match=r"model/lru\.py: there is no such file; give a checkout of LlamaRec"):
        authors_model(tmp_path, windows)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "lru.py").write_text(STAND_IN)
    model = authors_model(tmp_path, windows)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    durations = time_steps(model, windows, batch=2, steps=4)
    assert len(durations) == 4
    assert min(durations) > 0
    assert not any(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@linux
def test_our_side_gives_a_whole_record() -> None:
    draw = np.random.default_rng(0)
    lengths = draw.integers(2, 9, 40)
    windows = Windows(draw.integers(1, 31, lengths.sum()), lengths, 8, 30)
    record = measure(windows, batch=8, steps=6)
    assert record["steps"] == 6
    assert record["targets"] == pytest.approx(8 * (lengths - 1).mean(), rel=0.5)
    assert record["seconds"] >= record["least"] > 0
    assert record["floor_flops"] > 0
