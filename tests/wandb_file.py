"""Reads what Weights & Biases wrote offline: records of protobuf, framed as LevelDB's log is.

After a header of 7 bytes the file is blocks of 32 KiB. A record is one or more chunks, each with a checksum (4 bytes),
a length (2) and a kind (1: whole, 2, 3 and 4: first, middle and last part); what is left of a block too short for
another chunk's header is filled with zeros (https://github.com/google/leveldb/blob/main/doc/log_format.md).
"""

from __future__ import annotations

import importlib
import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

messages: Any = importlib.import_module("wandb.proto.wandb_internal_pb2")
"""Without types: what the module defines is chosen by the version of protobuf."""

BLOCK, FILE_HEADER, CHUNK_HEADER = 32768, 7, 7
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4
SECONDS = 60


def records(path: Path) -> Iterator[Any]:
    """All records that are whole; a killed process leaves its last one in parts."""
    content = path.read_bytes()
    assert content.startswith(b":W&B")
    place, parts = FILE_HEADER, b""
    while place + CHUNK_HEADER <= len(content):
        if BLOCK - place % BLOCK < CHUNK_HEADER:
            place += BLOCK - place % BLOCK
            continue
        _, length, kind = struct.unpack("<IHB", content[place : place + CHUNK_HEADER])
        place += CHUNK_HEADER
        chunk = content[place : place + length]
        place += length
        if kind not in (WHOLE, FIRST, MIDDLE, LAST) or len(chunk) < length:
            return
        parts = chunk if kind in (WHOLE, FIRST) else parts + chunk
        if kind in (WHOLE, LAST):
            yield messages.Record.FromString(parts)


def finished(path: Path) -> Path:
    """The file, once the service of Weights & Biases, a process of its own, has written the end of the run."""
    deadline = time.monotonic() + SECONDS
    while not any(record.WhichOneof("record_type") == "exit" for record in records(path)):
        assert time.monotonic() < deadline, f"{path} has no end"
        time.sleep(0.05)
    return path


class OfflineRun:
    """One file of a run: its identity, configuration, rows, summary and artifacts."""

    def __init__(self, path: Path) -> None:
        self.id = path.stem.removeprefix("run-")
        self.rows: list[dict[str, Any]] = []
        self.summary: dict[str, Any] = {}
        self.config: dict[str, Any] = {}
        self.artifacts: list[Any] = []
        self.exit_code: int | None = None
        for record in records(path):
            match record.WhichOneof("record_type"):
                case "run":
                    self.run = record.run
                    self.config |= values(record.run.config.update)
                case "config":
                    self.config |= values(record.config.update)
                case "history":
                    self.rows.append(values(record.history.item))
                case "summary":
                    self.summary |= values(record.summary.update)
                case "artifact":
                    self.artifacts.append(record.artifact)
                case "request" if record.request.WhichOneof("request_type") == "log_artifact":
                    self.artifacts.append(record.request.log_artifact.artifact)
                case "exit":
                    self.exit_code = record.exit.exit_code

    def curve(self, metric: str, step: str) -> dict[int, float]:
        return {row[step]: row[metric] for row in self.rows if metric in row}


def values(items: Any) -> dict[str, Any]:
    """Key and value of each item, whose value is JSON."""
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}
