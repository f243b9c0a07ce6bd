"""Optimizer steps as tensors of a few fixed shapes, as CUDA graphs need them.

A step is a list of windows of the flat array of interactions; only that list travels to the device, where
`static_inputs` makes items and targets of it. Unused places of the list hold windows of which no target counts.

Shapes: W windows of a step, F fields of a window, B rows of an input, L positions of a row, T targets.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tslrec.data.packing import RowLayout
from tslrec.data.windows import Prefixes, Windows

USERS, STARTS, LENGTHS, SKIPPED, PLACES = range(5)
"""The fields of a window: those of `Windows`, and where it begins in the step's inputs, as row × L + column."""
NUM_FIELDS = 5

ALIGNMENT = 8
"""Positions of a packed row are a multiple of this: a GPU's fused attention copies a mask of another width."""
MEAN_LEVEL = 4
"""A capacity is a multiple of the mean step divided by this, and at least a mean step."""
LONGEST_SHARE = 0.25
"""Share of a step's prefixes, the longest ones, that run in a wider input than the others."""
DEVIATIONS = 4.0
"""The width of the narrower input is chosen so that a step exceeds it at this many standard deviations from the mean;
such a step runs in one wide input."""


class StepShape(NamedTuple):
    """The shapes of a step's tensors. Steps of equal shape run the same kernels.

    Attributes:
        inputs: number of rows and of positions of each input.
        targets: T, of which some may not count.
        packed: whether a row holds several windows; there is one input then.
        prefixes: whether only the last position of a window has a target; T is then the number of windows.
    """

    inputs: tuple[tuple[int, int], ...]
    targets: int
    packed: bool = False
    prefixes: bool = False


class PlannedStep(NamedTuple):
    """One optimizer step.

    Attributes:
        shape: of its tensors.
        fields_FW: int64, the windows.
        num_targets: targets that count.
    """

    shape: StepShape
    fields_FW: NDArray[np.int64]
    num_targets: int


class StaticLayout(ABC):
    """Brings the windows of each step into one of a few shapes.

    Args:
        windows: all windows of the training part.
        size: W, windows of a step; the last step of a pass has fewer.
        max_len: the longest window.
    """

    def __init__(self, windows: Windows, size: int, max_len: int) -> None:
        self.windows = windows
        self.size = size
        self.max_len = max_len

    @abstractmethod
    def plan(self, step: NDArray[np.int64]) -> PlannedStep:
        """The windows of a step as fields, in the layout's order, and the step's shape.

        Args:
            step: indices of windows, at most W.
        """

    def fields(self, step: NDArray[np.int64]) -> NDArray[np.int64]:
        """The fields of a step's windows in the given order; unused places hold one item and no target."""
        fields_FW = np.zeros((NUM_FIELDS, self.size), dtype=np.int64)
        fields_FW[LENGTHS] = fields_FW[SKIPPED] = 1
        windows = self.windows
        for field, values in enumerate((windows.users, windows.starts, windows.lengths, windows.skipped)):
            fields_FW[field, : len(step)] = values[step]
        return fields_FW


class PrefixLayout(StaticLayout):
    """One target per window, its last one; the longest windows run in an input of their own.

    Args:
        prefixes: all prefixes of the training part.
        size: see `StaticLayout`.
        max_len: see `StaticLayout`.
        fixed_window: whether the backbone computes `max_len` positions anyway; then there is one input.
    """

    def __init__(self, prefixes: Prefixes, size: int, max_len: int, *, fixed_window: bool) -> None:
        lengths = prefixes.ends - prefixes.starts
        super().__init__(Windows(prefixes.users, prefixes.starts, lengths, lengths - 1), size, max_len)
        self.whole = StepShape(((size, max_len),), size, prefixes=True)
        longest = math.ceil(LONGEST_SHARE * size)
        width = max_len if fixed_window else likely_width(lengths, longest, size)
        self.divided = None
        if width < max_len:
            self.divided = StepShape(((longest, max_len), (size - longest, width)), size, prefixes=True)

    def plan(self, step: NDArray[np.int64]) -> PlannedStep:
        lengths = self.windows.lengths[step]
        shape = self.whole
        if self.divided is not None:
            order = np.argsort(-lengths, kind="stable")
            step, lengths = step[order], lengths[order]
            (longest, _), (_, width) = self.divided.inputs
            if lengths[longest:].max(initial=0) <= width:
                shape = self.divided
        return PlannedStep(shape, self.fields(step), len(step))


class WindowLayout(StaticLayout):
    """A target at each position of a window, and a row for each window."""

    def __init__(self, windows: Windows, size: int, max_len: int) -> None:
        super().__init__(windows, size, max_len)
        self.target_unit = unit(windows.num_targets * size / len(windows), 32)

    def plan(self, step: NDArray[np.int64]) -> PlannedStep:
        fields_FW = self.fields(step)
        fields_FW[PLACES] = np.arange(self.size) * self.max_len
        num_targets = int((fields_FW[LENGTHS] - fields_FW[SKIPPED]).sum())
        targets = capacity_level(num_targets / self.target_unit) * self.target_unit
        return PlannedStep(StepShape(((self.size, self.max_len),), targets), fields_FW, num_targets)


class PackedLayout(StaticLayout):
    """A target at each position of a window, and several windows to a row."""

    def __init__(self, windows: Windows, size: int, max_len: int) -> None:
        super().__init__(windows, size, max_len)
        self.width = -(-max_len // ALIGNMENT) * ALIGNMENT
        share = size / len(windows)
        self.target_unit = unit(windows.num_targets * share, 32)
        self.row_unit = unit(int(windows.lengths.sum()) * share / self.width, 1)

    def plan(self, step: NDArray[np.int64]) -> PlannedStep:
        rows_B, columns_B, (num_rows, _) = best_fit(self.windows.lengths[step], self.width)
        places = rows_B * self.width + columns_B
        # Rising, as the search for the window at a position needs it; unused windows lie behind all rows.
        order = np.argsort(places)
        fields_FW = self.fields(step[order])
        num_targets = int((fields_FW[LENGTHS] - fields_FW[SKIPPED]).sum())
        level = capacity_level(max(num_rows / self.row_unit, num_targets / self.target_unit))
        rows = level * self.row_unit
        fields_FW[PLACES] = rows * self.width
        fields_FW[PLACES, : len(step)] = places[order]
        shape = StepShape(((rows, self.width),), level * self.target_unit, packed=True)
        return PlannedStep(shape, fields_FW, num_targets)


def unit(mean: float, multiple: int) -> int:
    """The step between two capacities: a share of the mean step, rounded up to a multiple."""
    return max(1, math.ceil(mean / MEAN_LEVEL / multiple)) * multiple


def capacity_level(units: float) -> int:
    """The number of units of the smallest capacity that suffices; small steps share the capacity of a mean one."""
    return max(MEAN_LEVEL, math.ceil(units))


def likely_width(lengths: NDArray[np.int64], longest: int, size: int) -> int:
    """A width that all but the longest windows of a random step very probably fit into.

    Args:
        lengths: of all windows.
        longest: windows of a step that may be longer.
        size: windows of a step.
    """
    share = longest / size
    share -= DEVIATIONS * math.sqrt(share * (1 - share) / size)
    return int(np.quantile(lengths, min(1.0, 1 - share), method="higher"))


def best_fit(lengths_B: NDArray[np.int64], width: int) -> RowLayout:
    """Puts each sequence, the longest first, into the fullest row that has room for it; no row is longer than `width`.

    Rows are kept by their room, and the bits of a number say which rooms there are, so that a step of hundreds of
    sequences takes far less than a millisecond.

    Args:
        lengths_B: lengths of the sequences, at most `width`.
        width: positions of a row.
    """
    rows_B, columns_B = np.zeros_like(lengths_B), np.zeros_like(lengths_B)
    rows_with_room: list[list[int]] = [[] for _ in range(width + 1)]
    rooms, num_rows = 0, 0
    order = np.argsort(-lengths_B, kind="stable")
    placed: list[tuple[int, int]] = []
    for length in lengths_B[order].tolist():
        enough = rooms >> length
        if enough:
            room = length + (enough & -enough).bit_length() - 1
            row = rows_with_room[room].pop()
            if not rows_with_room[room]:
                rooms ^= 1 << room
        else:
            row, room, num_rows = num_rows, width, num_rows + 1
        placed.append((row, width - room))
        if room > length:
            rows_with_room[room - length].append(row)
            rooms |= 1 << (room - length)
    rows_B[order], columns_B[order] = np.array(placed, dtype=np.int64).reshape(-1, 2).T
    return RowLayout(rows_B, columns_B, (num_rows, width))
