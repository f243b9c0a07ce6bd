"""`tslrec VERB`: every command but training, which is `python train.py`.

A verb is a module of `tslrec.cli` with a `SUMMARY`, `add_arguments(parser)` and `run(arguments)`; its docstring is its
help text. It imports heavy packages inside `run`, so that `--help` and typos answer at once, and raises `UserError` for
errors that the user can fix.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
from collections.abc import Sequence
from typing import NoReturn

from tslrec import cli
from tslrec.system.errors import UserError

NOT_VERBS = frozenset({"__main__", "main", "train"})
"""Modules of `tslrec.cli` that are not verbs: this one and its other name, and the one that `train.py` runs."""


def verb_names() -> list[str]:
    """The names of all verbs: the modules of `tslrec.cli`."""
    return sorted(module.name for module in pkgutil.iter_modules(cli.__path__) if module.name not in NOT_VERBS)


class Parser(argparse.ArgumentParser):
    """Reports a wrong command line in one line, like every other error."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; `{self.prog} --help` lists the options")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a verb; a `UserError` ends in one line and exit code 2.

    Args:
        argv: the arguments; None: those of the process.
    """
    from tslrec.system import logs
    from tslrec.system.exits import run_program
    from tslrec.system.threads import limit_spinning

    # Before a verb imports torch: its OpenMP library reads the environment once, when it is loaded.
    limit_spinning()
    logs.install()
    arguments = sys.argv[1:] if argv is None else list(argv)
    run_program(lambda: run(arguments))


def run(argv: list[str]) -> None:
    """Finds the verb by the first argument; its own parser reads the rest, overrides and options in any order."""
    text = argparse.RawDescriptionHelpFormatter
    verbs = {name: importlib.import_module(f"{cli.__name__}.{name}") for name in verb_names()}
    summaries = "\n".join(f"  {name:9} {verb.SUMMARY}" for name, verb in verbs.items())
    top = Parser(
        prog="tslrec",
        usage="tslrec VERB …",
        formatter_class=text,
        description=f"Works with data and results; to train, run `python train.py`.\n\nverbs:\n{summaries}",
        epilog="`tslrec VERB --help` describes a verb.",
    )
    top.add_argument("verb", choices=verbs, metavar="VERB", help="one of these")
    name = top.parse_args(argv[:1]).verb
    verb = verbs[name]
    parser = Parser(prog=f"tslrec {name}", formatter_class=text, description=verb.__doc__, allow_abbrev=False)
    verb.add_arguments(parser)
    verb.run(parser.parse_intermixed_args(argv[1:]))


if __name__ == "__main__":
    main()
