"""Reads the offline file of a run of Weights & Biases: protobuf records in the frames of LevelDB's log.

After a header of 7 bytes the file is blocks of 32 KiB. A record is one or more chunks, each with a checksum (4 bytes),
a length (2) and a kind (1: whole, 2, 3 and 4: first, middle and last part). The end of a block that is too short for
the header of another chunk is filled with zeros (https://github.com/google/leveldb/blob/main/doc/log_format.md).
"""

from __future__ import annotations

import importlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from support.waiting import wait_until

messages: Any = importlib.import_module("wandb.proto.wandb_internal_pb2")
"""Has no types, since the module imports other definitions for other versions of protobuf."""

BLOCK, FILE_HEADER, CHUNK_HEADER = 32768, 7, 7
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4


def records(path: Path) -> Iterator[Any]:
    """All complete records; the last one of a killed process may be cut off."""
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
    """Waits until the file has the end of the run, which a background process of Weights & Biases writes; the file."""

    def has_end() -> bool:
        return any(record.WhichOneof("record_type") == "exit" for record in records(path))

    wait_until(has_end, f"{path} ends with the end of the run")
    return path


class OfflineRun:
    """What the offline file of a run holds: id, configuration, rows of metrics, summary, artifacts and exit code."""

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
        """The values of a metric by the step of the rows that have it."""
        return {row[step]: row[metric] for row in self.rows if metric in row}


def values(items: Any) -> dict[str, Any]:
    """The value of each item, read from JSON, by its key."""
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}
