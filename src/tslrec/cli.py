"""`tslrec VERB`: everything about data and results that is not a training run, which is `train.py`.

A verb is a module of `tslrec.verbs` with a `SUMMARY`, `add_arguments(parser)` and `run(arguments)`. It imports heavy
packages inside `run`, so that help and a typo answer at once; what a person can put right it raises as `UserError`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from tslrec.errors import UserError
from tslrec.verbs import audit, clean, extend, page, paper, report, status

VERBS: dict[str, Any] = {
    "audit": audit,
    "report": report,
    "paper": paper,
    "page": page,
    "status": status,
    "extend": extend,
    "clean": clean,
}


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, like every other error."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; `{self.prog} --help` shows what there is")


def main(argv: Sequence[str] | None = None) -> None:
    """Runs a verb; what a person can put right ends in one line and exit code 2."""
    from tslrec.entry import entry

    arguments = sys.argv[1:] if argv is None else list(argv)
    entry(lambda: run(arguments))


def run(argv: list[str]) -> None:
    """Finds the verb by the first argument; its own parser reads the rest, choices and options in any order."""
    text = argparse.RawDescriptionHelpFormatter
    summaries = "\n".join(f"  {name:8} {verb.SUMMARY}" for name, verb in VERBS.items())
    top = Parser(
        prog="tslrec",
        usage="tslrec VERB …",
        formatter_class=text,
        description=f"Looks at data and results; training is `python train.py`.\n\nverbs:\n{summaries}",
        epilog="`tslrec VERB --help` says more.",
    )
    top.add_argument("verb", choices=VERBS, metavar="VERB", help="one of them")
    name = top.parse_args(argv[:1]).verb
    parser = Parser(prog=f"tslrec {name}", formatter_class=text, description=VERBS[name].__doc__, allow_abbrev=False)
    VERBS[name].add_arguments(parser)
    VERBS[name].run(parser.parse_intermixed_args(argv[1:]))


if __name__ == "__main__":
    main()
