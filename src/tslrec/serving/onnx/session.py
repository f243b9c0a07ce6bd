"""Opens ONNX graphs with onnxruntime, on the CPU."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from tslrec.system.errors import UserError

ERROR, FATAL = 3, 4
"""Severities of onnxruntime's messages."""


def open_session(graph: bytes | Path, *, threads: int = 1, quiet: bool = False) -> onnxruntime.InferenceSession:
    """A session whose requests run one operator after another.

    Args:
        graph: the serialised graph, or its file.
        threads: of one operator. A server that answers several requests at once is fastest with 1.
        quiet: print no message of an operator that fails, where that is expected.

    Raises:
        UserError: if it is no graph that onnxruntime can run.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
    # Requests differ in shape, so a plan of the memory of the last one is of no use.
    options.enable_mem_pattern = False
    options.log_severity_level = FATAL if quiet else ERROR
    # Threads that wait in a loop would take the cores from the server's other threads.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    source = graph if isinstance(graph, bytes) else str(graph)
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has a class of its own for each way to fail
        name = "graph" if isinstance(graph, bytes) else graph
        raise UserError(f"{name}: onnxruntime cannot run it ({' '.join(str(error).split())}); export again") from error
