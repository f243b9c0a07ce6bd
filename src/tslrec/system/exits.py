"""Entry and exit of the command line: an error that the user can correct ends in one line and an exit code."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from tslrec.system import interruptions, outputs, processes
from tslrec.system.errors import StoppedError, UserError
from tslrec.system.interruptions import EXIT_SIGNAL, Interruption
from tslrec.system.optional_packages import line_of_missing

EXIT_USER_ERROR = 2
"""Exit code after an error that the user can correct."""

CONFIGURATION_ERRORS = {"hydra.errors": "HydraException", "omegaconf.errors": "OmegaConfBaseException"}
"""By module: the base class of its errors about a configuration that does not compose."""


def run_program(main: Callable[[], None]) -> None:
    """Runs a program; an error that the user can correct ends it with one line.

    Such an error is a `UserError`, a configuration that does not compose, or an optional package that is missing. A
    signal ends it with one line too (`tslrec.system.interruptions`).

    Args:
        main: the program.

    Raises:
        SystemExit: after such an error, with the code of `exit_with`.
    """
    # With this variable Hydra raises its errors, and we print one line, instead of printing several and exiting.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    outputs.install()
    interruptions.PROGRAM = interruptions.StopRequest()
    interruptions.install()
    if (line := outputs.set_home()) is not None:
        print(line, file=sys.stderr, flush=True)
    try:
        main()
        had_group = processes.destroy_group()
        if sys.stdout is not None:
            # Here, so that a closed pipe is noticed before the interpreter's exit.
            sys.stdout.flush()
        if had_group:
            processes.leave(0)
    except Interruption as stop:
        if processes.is_rank_zero() and not stop.told:
            stop.told = True
            name = interruptions.name_of(stop.signal)
            print(f"stopped by {name} before it was done; run the same command again", file=sys.stderr, flush=True)
        raise
    except ModuleNotFoundError as error:
        line = line_of_missing(error)
        if line is None:
            raise
        exit_with(UserError(line))
    except UserError as error:
        exit_with(error)
    except configuration_errors() as error:
        exit_with(error)


def configuration_errors() -> tuple[type[Exception], ...]:
    """The classes of `CONFIGURATION_ERRORS`, of the modules that are imported: no other module can have raised one."""
    return tuple(getattr(sys.modules[name], kind) for name, kind in CONFIGURATION_ERRORS.items() if name in sys.modules)


def exit_with(error: Exception) -> None:
    """Prints an error as one line to standard error and exits.

    The exit code is `EXIT_USER_ERROR`, or `EXIT_SIGNAL` plus the signal's number for a `StoppedError`.
    """
    if isinstance(error, StoppedError):
        print(one_line(error), file=sys.stderr, flush=True)
        if processes.destroy_group():
            processes.leave(EXIT_SIGNAL + error.signal)
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
    if isinstance(error.__cause__, configuration_errors()):
        text += f"; {str(error.__cause__).splitlines()[0]}"
    return f"{text}; `python train.py --cfg job` prints every key, `--help` every choice"
