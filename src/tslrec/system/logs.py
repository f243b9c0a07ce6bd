"""Progress messages: every module logs to a child of the logger `tslrec`, which has one handler."""

from __future__ import annotations

import logging

from tslrec.system.errors import UserError

ROOT = "tslrec"
"""Name of the project's logger; `logging.getLogger(__name__)` in any module gives a child of it."""


class ConsoleHandler(logging.Handler):
    """Prints records through rich to standard output: formatted on a terminal, plain text elsewhere.

    It looks up `sys.stdout` anew for each record, so that redirected output is respected.
    """

    def emit(self, record: logging.LogRecord) -> None:
        try:
            from tslrec.system.consoles import plain_console

            plain_console().print(self.format(record), soft_wrap=True)
        except UserError:
            # The output cannot be written (`tslrec.system.outputs`).
            raise
        except Exception:
            self.handleError(record)


def install() -> None:
    """Gives the project's logger its handler and the level INFO; a second call adds no second handler."""
    logger = logging.getLogger(ROOT)
    if not any(isinstance(handler, ConsoleHandler) for handler in logger.handlers):
        logger.addHandler(ConsoleHandler())
    logger.setLevel(logging.INFO)
    # Other packages add handlers to the root logger; with propagation every line would be printed twice.
    logger.propagate = False
