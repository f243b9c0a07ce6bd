"""Runs optimizer steps whose tensors have one of a few shapes; on a GPU each shape's step becomes a CUDA graph.

A graph holds the kernels of a whole step with the addresses of their tensors, and one call launches all of them. A
step on its own would have hundreds of launches, each of which takes longer than most of the kernels.

Shapes: W windows of a step, F fields of a window.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol

import torch
from torch import Tensor

from tslrec.data.static_layouts import StepShape

log = logging.getLogger(__name__)

WARM_UPS = 3
"""Steps of a shape that run kernel by kernel before its graph is captured: libraries allocate and choose kernels in
them, which a capture cannot hold (PyTorch's notes on CUDA graphs). They are ordinary steps of the training."""
MOST_GRAPHS = 8
"""Graphs that are kept; steps of further shapes, which are rare, run kernel by kernel."""


class CaptureError(Exception):
    """A step could not be captured."""


class Launcher(Protocol):
    """How a device runs steps."""

    def running(self) -> AbstractContextManager[None]:
        """A context in which steps run."""

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        """Records a step without running it, and gives a function that runs it.

        Raises:
            CaptureError: if the step does something that cannot be recorded; nothing has changed then.
        """


class DirectLauncher:
    """Runs the Python function itself, on a device without graphs: the same step on the same tensors."""

    @contextmanager
    def running(self) -> Iterator[None]:
        yield

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        return step


class CudaLauncher:
    """Captures steps as CUDA graphs, which share one memory pool: none of them keeps a result in it.

    Steps run on a stream of their own, as capturing demands. It waits for what was queued before, and later work waits
    for it; the host waits for neither.

    Args:
        device: a CUDA device.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = torch.cuda.Stream(device)
        self.pool = torch.cuda.graph_pool_handle()

    @contextmanager
    def running(self) -> Iterator[None]:
        outside = torch.cuda.current_stream(self.device)
        self.stream.wait_stream(outside)
        with torch.cuda.stream(self.stream):
            yield
        outside.wait_stream(self.stream)

    def capture(self, step: Callable[[], None]) -> Callable[[], None]:
        index = torch.cuda.current_device() if self.device.index is None else self.device.index
        generator = torch.cuda.default_generators[index]
        before = generator.clone_state()
        graph = torch.cuda.CUDAGraph()
        try:
            # Only this thread's calls can spoil the capture: another thread may prepare batches in pinned memory.
            with torch.cuda.graph(graph, pool=self.pool, stream=self.stream, capture_error_mode="thread_local"):
                step()
        except RuntimeError as error:
            # A capture that failed leaves its generator state unusable.
            generator.graphsafe_set_state(before)
            # The end of a failed capture raises too, and says less than what came before it.
            raise CaptureError(str(error.__context__ or error)) from error
        return graph.replay


def launcher_for(device: torch.device) -> Launcher:
    """The way to run steps on a device."""
    return CudaLauncher(device) if device.type == "cuda" else DirectLauncher()


class StepGraphs:
    """Runs steps, and replays those whose shape has occurred often enough.

    Args:
        step: runs one step; it reads its windows from the tensor that it is given, changes tensors in place, and
            neither waits for the device nor depends on the values of a tensor.
        fields_FW: a tensor on the device in which each step finds its windows.
        launcher: how the device runs steps.
    """

    def __init__(self, step: Callable[[Tensor, StepShape], None], fields_FW: Tensor, launcher: Launcher) -> None:
        self.step = step
        self.fields_FW = fields_FW
        self.launcher = launcher
        self.warm_ups: Counter[StepShape] = Counter()
        self.graphs: dict[StepShape, Callable[[], None]] = {}
        self.capturing = True

    def run(self, fields_FW: Tensor, shape: StepShape) -> None:
        """Runs one step; call it within `launcher.running()`.

        Args:
            fields_FW: the step's windows.
            shape: of the step.
        """
        self.fields_FW.copy_(fields_FW)
        if shape not in self.graphs and self.warm_ups[shape] >= WARM_UPS and self.capturing:
            self.capture(shape)
        if shape in self.graphs:
            self.graphs[shape]()
        else:
            self.warm_ups[shape] += 1
            self.step(self.fields_FW, shape)

    def capture(self, shape: StepShape) -> None:
        """Makes the graph of a shape; if that fails, this and all later steps run kernel by kernel."""
        if len(self.graphs) == MOST_GRAPHS:
            return
        try:
            self.graphs[shape] = self.launcher.capture(lambda: self.step(self.fields_FW, shape))
        except CaptureError as error:
            # The earlier graphs draw from the generator state that the failed capture has spoilt.
            self.graphs.clear()
            self.capturing = False
            reason = str(error).strip().partition("\n")[0]
            log.warning(f"steps run kernel by kernel, since one could not be captured as a CUDA graph: {reason}")
