"""When a shape's step is captured and replayed, and what happens where that fails."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from tslrec.data.static_layouts import StepShape
from tslrec.training import step_graphs
from tslrec.training.delayed_copy import DelayedCopy
from tslrec.training.step_graphs import WARM_UPS, CaptureError, DirectLauncher, StepGraphs


def shape(rows: int) -> StepShape:
    return StepShape(((rows, 4),), 8)


class Recording(DirectLauncher):
    """Notes captures and replays; a capture runs nothing, as on a GPU."""

    def __init__(self, *, fails_at: int | None = None) -> None:
        self.captures = 0
        self.replays = 0
        self.fails_at = fails_at

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        self.captures += 1
        if self.captures == self.fails_at:
            raise CaptureError("operation not permitted when stream is capturing\nCompile with TORCH_USE_CUDA_DSA")

        def replay() -> None:
            self.replays += 1
            step()

        return replay


class Adder:
    """A step that adds its windows to a sum for each shape."""

    def __init__(self) -> None:
        self.sums: dict[StepShape, Tensor] = {}

    def __call__(self, fields_FW: Tensor, shape: StepShape) -> None:
        self.sums.setdefault(shape, torch.zeros(2, 3)).add_(fields_FW)


def test_a_shape_is_captured_once_and_each_step_runs_once() -> None:
    adder, launcher = Adder(), Recording()
    graphs = StepGraphs(adder, torch.zeros(2, 3), launcher)
    for number in range(10):
        graphs.run(torch.full((2, 3), float(number)), shape(1))
        graphs.run(torch.full((2, 3), 100.0 + number), shape(2))
    assert launcher.captures == 2
    assert launcher.replays == 2 * (10 - WARM_UPS)
    assert torch.equal(adder.sums[shape(1)], torch.full((2, 3), 45.0))
    assert torch.equal(adder.sums[shape(2)], torch.full((2, 3), 1045.0))


def test_a_rare_shape_is_not_captured() -> None:
    launcher = Recording()
    graphs = StepGraphs(Adder(), torch.zeros(2, 3), launcher)
    for rows in range(20):
        for _ in range(WARM_UPS):
            graphs.run(torch.ones(2, 3), shape(rows))
    assert launcher.captures == 0


def test_no_more_graphs_than_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_graphs, "MOST_GRAPHS", 2)
    adder, launcher = Adder(), Recording()
    graphs = StepGraphs(adder, torch.zeros(2, 3), launcher)
    for rows in range(4):
        for _ in range(WARM_UPS + 2):
            graphs.run(torch.ones(2, 3), shape(rows))
    assert launcher.captures == len(graphs.graphs) == 2
    assert all(torch.equal(each, torch.full((2, 3), WARM_UPS + 2.0)) for each in adder.sums.values())


def test_a_failed_capture_is_named_once_and_every_step_still_runs(log_lines: list[str]) -> None:
    adder, launcher = Adder(), Recording(fails_at=2)
    graphs = StepGraphs(adder, torch.zeros(2, 3), launcher)
    for _ in range(10):
        for rows in (1, 2, 3):
            graphs.run(torch.ones(2, 3), shape(rows))
    assert log_lines == [
        "steps run kernel by kernel, since one could not be captured as a CUDA graph: "
        "operation not permitted when stream is capturing"
    ]
    # The graph of the first shape was dropped too: it draws from a generator state that the failure has spoilt.
    assert launcher.captures == 2
    assert launcher.replays == 1
    assert not graphs.graphs
    assert all(torch.equal(each, torch.full((2, 3), 10.0)) for each in adder.sums.values())


def test_numbers_are_read_one_call_late() -> None:
    late, numbers = DelayedCopy(), torch.zeros(2)
    assert late.exchange(numbers) is None
    numbers += 1
    assert late.exchange(numbers) is not None
    numbers += 1
    found = late.exchange(numbers)
    assert found is not None
    assert found.tolist() == [1.0, 1.0]
