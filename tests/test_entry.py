"""How a program ends: its exit code, and the process group that it leaves behind or takes leave of."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest
import torch.distributed as dist

from tslrec.entry import EXIT_SIGNAL, EXIT_USER_ERROR, entry
from tslrec.errors import StoppedError, UserError


@pytest.fixture
def joined() -> Iterator[Callable[[], None]]:
    """Forms a group of this process alone."""

    def join() -> None:
        dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())

    yield join
    if dist.is_initialized():
        dist.destroy_process_group()


def test_a_program_that_ends_well_leaves_its_process_group(joined: Callable[[], None]) -> None:
    entry(joined)
    assert not dist.is_initialized()


@pytest.mark.parametrize(
    ("error", "code", "stays"),
    [
        # All processes stop together, after the same step.
        (StoppedError("stopped", signal.SIGTERM), EXIT_SIGNAL + signal.SIGTERM, False),
        # Others may be in the midst of an exchange with this one, which to leave could wait for ever.
        (UserError("wrong"), EXIT_USER_ERROR, True),
    ],
)
def test_one_that_stops_with_all_others_leaves_it_and_one_that_fails_by_itself_does_not(
    joined: Callable[[], None], error: Exception, code: int, stays: bool
) -> None:
    def run() -> None:
        joined()
        raise error

    with pytest.raises(SystemExit) as ended:
        entry(run)
    assert ended.value.code == code
    assert dist.is_initialized() == stays
