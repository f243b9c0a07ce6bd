"""Fixtures of tests in several folders, and the option `--device`."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--device",
        choices=("cpu", "cuda"),
        default="cpu",
        help="where the tests with the fixture `device` compute; with cuda only these run",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Refuses a device that is not there, and lets the programs that tests start hear Ctrl-C and the end of a terminal.

    A shell starts what it runs in the background with SIGINT ignored, and `nohup` does so with SIGHUP; children inherit
    that.

    Raises:
        UsageError: in one line; pytest exits with code 4.
    """
    for number, handler in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)
    if config.getoption("--device") == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise pytest.UsageError("--device cuda: PyTorch sees no GPU here; leave it out to test on the CPU")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On a GPU, leaves out the tests without the fixture `device`: they would only repeat what the CPU shows."""
    if config.getoption("--device") == "cpu":
        return
    chosen = [item for item in items if "device" in getattr(item, "fixturenames", ())]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> torch.device:
    """The device of `--device`, with float32 computed in float32."""
    import torch

    name = str(request.config.getoption("--device"))
    if name == "cuda":
        from support.devices import exact_float32

        exact_float32()
    return torch.device(name)


@pytest.fixture(autouse=True)
def _own_signal_handlers() -> Iterator[None]:
    """Each test has the handlers of pytest, whatever program an earlier one ran."""
    from support.signal_handlers import handlers_put_back

    with handlers_put_back():
        yield


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
