"""Fixtures of tests in several folders."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _no_log_handler() -> None:
    """Gives each test the project's logger as a library has it: what an earlier run in this process installed is gone.

    Without this the log would go to `caplog` or to `capsys`, depending on which tests came before.
    """
    logger = logging.getLogger("tslrec")
    logger.handlers.clear()
    logger.setLevel(logging.NOTSET)
    logger.propagate = True


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The working directory of a finished run of all stages; a test that changes it works on a copy."""
    from support.in_process import RUN, train_here

    folder = tmp_path_factory.mktemp("finished")
    ended = train_here(*RUN, folder=folder)
    assert ended.code == 0, ended.err
    return folder


@pytest.fixture
def log_lines() -> Iterator[list[str]]:
    """What the project logs within a test, a line each."""
    lines: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger, collector = logging.getLogger("tslrec"), Collector()
    logger.addHandler(collector)
    level = logger.level
    logger.setLevel(logging.INFO)
    yield lines
    logger.setLevel(level)
    logger.removeHandler(collector)
