"""A program's exit code, and whether it destroys its process group when it ends."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import pytest
import torch.distributed as dist

from tslrec.system.errors import StoppedError, UserError
from tslrec.system.exits import EXIT_SIGNAL, EXIT_USER_ERROR, run_program


@pytest.fixture
def join_group() -> Iterator[Callable[[], None]]:
    """A function that forms a process group of this process alone."""

    def join() -> None:
        dist.init_process_group("gloo", rank=0, world_size=1, store=dist.HashStore())

    yield join
    if dist.is_initialized():
        dist.destroy_process_group()


def test_a_program_that_succeeds_destroys_its_process_group(join_group: Callable[[], None]) -> None:
    run_program(join_group)
    assert not dist.is_initialized()


@pytest.mark.parametrize(
    ("error", "code", "group_remains"),
    [
        # After a signal all processes stop together, after the same step.
        (StoppedError("stopped", signal.SIGTERM), EXIT_SIGNAL + signal.SIGTERM, False),
        # Other processes may wait in a collective operation, so destroying the group could block for ever.
        (UserError("wrong"), EXIT_USER_ERROR, True),
    ],
)
def test_a_stopped_program_destroys_its_process_group_and_a_failed_one_does_not(
    join_group: Callable[[], None], error: Exception, code: int, group_remains: bool
) -> None:
    def run() -> None:
        join_group()
        raise error

    with pytest.raises(SystemExit) as ended:
        run_program(run)
    assert ended.value.code == code
    assert dist.is_initialized() == group_remains
