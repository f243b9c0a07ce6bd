"""Entry and exit of the command line: an error that the user can correct ends in one line and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from tslrec.system import processes
from tslrec.system.errors import StoppedError, UserError

EXIT_USER_ERROR = 2
"""Exit code after an error that the user can correct."""
EXIT_SIGNAL = 128
"""Added to a signal's number, as shells do, it is the exit code of a run that the signal stopped."""


def run_program(main: Callable[[], None]) -> None:
    """Runs a Hydra program and exits with one line on a `UserError` or a configuration that does not compose.

    Args:
        main: the program.

    Raises:
        SystemExit: after such an error, with the code of `exit_with`.
    """
    # With this variable Hydra raises its errors, and we print one line, instead of printing several and exiting.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        main()
        processes.destroy_group()
    except (UserError, HydraException, OmegaConfBaseException) as error:
        exit_with(error)


def exit_with(error: Exception) -> None:
    """Prints an error as one line to standard error and exits.

    The exit code is `EXIT_USER_ERROR`, or `EXIT_SIGNAL` plus the signal's number for a `StoppedError`.
    """
    if isinstance(error, StoppedError):
        print(one_line(error), file=sys.stderr, flush=True)
        processes.destroy_group()
        sys.exit(EXIT_SIGNAL + error.signal)
    print(f"error: {one_line(error)}", file=sys.stderr, flush=True)
    sys.exit(EXIT_USER_ERROR)


def one_line(error: Exception) -> str:
    """An error's text on one line; to an error of Hydra or OmegaConf it adds the cause and what to do."""
    text = "; ".join(part.strip() for part in str(error).splitlines() if part.strip())
    if isinstance(error, UserError):
        return text
    # The search path does not help a user who misspelt a name.
    text = text.split("; Config search path:")[0]
    if isinstance(error.__cause__, OmegaConfBaseException):
        text += f"; {str(error.__cause__).splitlines()[0]}"
    return f"{text}; `python train.py --cfg job` prints every key, `--help` every choice"
