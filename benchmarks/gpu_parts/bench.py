"""What every step of `benchmarks/gpu.py` gets: the device, sizes, clocks, and where figures go."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

PRODUCT_SIDE = 8192
"""Side of the square matrices whose product gives the card's own rate; large enough that nothing else counts."""


class NotMeasuredError(Exception):
    """A step cannot run here; the message says what is missing. It is recorded as a reason, not as a failure."""


@dataclass(frozen=True)
class Step:
    """One measurement of a part.

    Attributes:
        name: unique within its part.
        seconds: its budget on the card: it is ended when it takes longer.
        run: measures, and reports by `Bench.figure` and `Bench.say`.
        what: what it measures, for the timing plan.
        rest: whether it gets all that is left of the run instead; `seconds` is then what is set aside for it.
    """

    name: str
    seconds: int
    run: Callable[[Bench], None]
    what: str
    rest: bool = False


class Report(Protocol):
    """Takes what a step has so far, and how it ended if it has."""

    def __call__(self, bench: Bench, ended: str = ..., why: str = ...) -> None: ...


def unheard(bench: Bench, ended: str = "", why: str = "") -> None:
    """Reports to nobody; for a step that is run by itself."""


@dataclass
class Bench:
    """The surroundings of one step.

    Attributes:
        device_name: `cuda`, or `cpu` in a rehearsal.
        rehearse: whether sizes are tiny, to see that everything runs.
        folder: scratch space, shared by the steps of a run and kept between runs.
        data: folder with the raw data files: `beauty.txt`, `ml-1m.txt`, …
        peers: folder with the packages of RecBole and RecTools; None: they are not here.
        ends: when the step is ended, in seconds since 1970.
        cells: patterns of names of cells (part `cells`); none: those that are missing.
        figures: what this step has measured so far, by name.
        lines: what it says in words.
    """

    device_name: str
    rehearse: bool
    folder: Path
    data: Path
    peers: Path | None = None
    ends: float = math.inf
    cells: tuple[str, ...] = ()
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    report: Report = unheard
    """Called after each figure, so that nothing measured is lost when a step is ended."""

    @property
    def device(self) -> torch.device:
        import torch

        return torch.device(self.device_name)

    @property
    def on_card(self) -> bool:
        return self.device_name == "cuda"

    def sized(self, real: T, tiny: T) -> T:
        """A size: the real one, or the rehearsal's."""
        return tiny if self.rehearse else real

    def figure(self, name: str, value: float, unit: str, **beside: Any) -> None:
        """Prints a figure at once and keeps it.

        Args:
            name: lower case, words joined by `_`; unique within the step.
            value: the number.
            unit: `s`, `GiB`, `TFLOP/s`, `%`, `x`, `tokens/s`, `count`, …
            beside: what it is compared with, such as `planned=…` or `aim=…`.
        """
        number = float(f"{value:.4g}")
        self.figures[name] = {"value": number, "unit": unit, **beside}
        compared = "".join(
            f"  {key} {text:g}" if isinstance(text, float) else f"  {key} {text}" for key, text in beside.items()
        )
        print(f"    {name} {number:g} {unit}{compared}", flush=True)
        self.report(self)

    def say(self, line: str) -> None:
        """Prints a sentence at once and keeps it."""
        self.lines.append(line)
        print(f"    {line}", flush=True)
        self.report(self)

    def synchronize(self) -> None:
        """Waits until the card has done all that it was given."""
        if self.on_card:
            import torch

            torch.cuda.synchronize()

    def seconds(self, work: Callable[[], Any], *, repeats: int = 5, warm_up: int = 2) -> float:
        """Median seconds of some work, the card's included."""
        for _ in range(warm_up):
            work()
        self.synchronize()
        taken = []
        for _ in range(repeats):
            began = time.perf_counter()
            work()
            self.synchronize()
            taken.append(time.perf_counter() - began)
        return statistics.median(taken)

    @contextmanager
    def peak_memory(self) -> Iterator[dict[str, float]]:
        """Measures peaks in GiB: `card`, allocated by PyTorch (0 on a CPU), and `host`, of this process."""
        from tslrec.system.meter import peak_memory_gib, reset_peak_memory

        found: dict[str, float] = {}
        reset_peak_memory()
        if self.on_card:
            import torch

            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        yield found
        found["host"] = peak_memory_gib()
        found["card"] = 0.0
        if self.on_card:
            import torch

            found["card"] = torch.cuda.max_memory_allocated() / 2**30

    def product_rate(self, dtype_name: str) -> float:
        """TFLOP/s of a large matrix product on random data, the card's own measure of its speed.

        Measured once per run and kept in `folder`: all steps of a run are shares of the same number.

        Args:
            dtype_name: `bfloat16` or `float32` (at `torch.get_float32_matmul_precision()`, part of the kept name).
        """
        import torch

        kept = self.folder / f"product_{dtype_name}_{torch.get_float32_matmul_precision()}.txt"
        if kept.is_file():
            return float(kept.read_text())
        side = self.sized(PRODUCT_SIDE, 256)
        dtype = getattr(torch, dtype_name) if self.on_card else torch.float32
        left, right = (torch.randn(side, side, device=self.device).to(dtype) for _ in range(2))
        out = torch.empty_like(left)
        rate = 2 * side**3 / self.seconds(lambda: torch.mm(left, right, out=out), repeats=20, warm_up=5) / 1e12
        kept.write_text(f"{rate!r}\n")
        return rate


@contextmanager
def matmul_precision(precision: str) -> Iterator[None]:
    """While active, float32 products have the given precision (`torch.set_float32_matmul_precision`)."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)
