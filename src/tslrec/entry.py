"""The way in from the command line: what a person can put right ends in one line and an exit code, not a traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable

from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from tslrec import ranks
from tslrec.errors import StoppedError, UserError

EXIT_USER_ERROR = 2
EXIT_SIGNAL = 128


def entry(main: Callable[[], None]) -> None:
    """Runs a Hydra program; a configuration that does not compose is as much a person's error as a `UserError`."""
    # Hydra would print its own several lines and exit; with this it raises, and we print one.
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    try:
        main()
        ranks.leave()
    except (UserError, HydraException, OmegaConfBaseException) as error:
        stop(error)


def stop(error: Exception) -> None:
    """Prints one line to standard error and exits: with `EXIT_USER_ERROR`, or by a shell's custom with 128 + signal."""
    if isinstance(error, StoppedError):
        print(one_line(error), file=sys.stderr, flush=True)
        ranks.leave()
        sys.exit(EXIT_SIGNAL + error.signal)
    print(f"error: {one_line(error)}", file=sys.stderr, flush=True)
    sys.exit(EXIT_USER_ERROR)


def one_line(error: Exception) -> str:
    """An error's text on one line; what Hydra and OmegaConf say gets its reason and what to do."""
    text = "; ".join(part.strip() for part in str(error).splitlines() if part.strip())
    if isinstance(error, UserError):
        return text
    # The places where configurations were looked for are no help against a misspelt name.
    text = text.split("; Config search path:")[0]
    if isinstance(error.__cause__, OmegaConfBaseException):
        text += f"; {str(error.__cause__).splitlines()[0]}"
    return f"{text}; `python train.py --cfg job` prints every key, `--help` every choice"
