"""The words of a command line, before Hydra reads them: options in any place, values that need no second quoting.

A value that Hydra's grammar refuses has no meaning but its text. So it is quoted here, unless it looks like the list,
the mapping, the sweep or the quoted text that it was perhaps meant to be.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from tslrec.pipeline.known_keys import groups, is_list_of_texts, is_setting, nearest, schema_keys, unknown_key
from tslrec.system.errors import UserError

if TYPE_CHECKING:
    from hydra.core.override_parser.overrides_parser import OverridesParser

LONGEST = 300
"""Characters of a message."""

SHOWN = 110
"""Characters of a word that a message shows."""

LONGEST_LIST = 80
"""Characters of a list of texts that a message shows, beside the word that it refuses."""

CALLS = re.compile(r"\w+\s*\(")
"""How a value begins that is a function of Hydra's grammar, such as `range(1,4)`."""


def arranged(argv: Sequence[str]) -> list[str]:
    """A command line as Hydra reads it: the options first, then the overrides.

    Args:
        argv: the arguments of `train.py`.

    Raises:
        UserError: naming the option or the override that cannot be read.
    """
    options, words = separated(argv)
    sweeping = bool({"-m", "--multirun"} & set(options)) or any(word.startswith("hydra.mode=") for word in words)
    return [*options, *readable(words, sweeping=sweeping)]


def separated(argv: Sequence[str]) -> tuple[list[str], list[str]]:
    """The options of a command line with their values, and its overrides, each in order.

    Raises:
        UserError: if an option does not exist, or lacks its value.
    """
    import argparse

    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()
    actions = {name: action for action in parser._actions for name in action.option_strings}
    options: list[str] = []
    words: list[str] = []
    left = list(argv)
    while left:
        word = left.pop(0)
        if word == "--":
            words += left
            break
        if not word.startswith("-") or word == "-":
            words.append(word)
            continue
        name, sign, _ = word.partition("=")
        name = name if name in actions else only_one(name, actions)
        options.append(f"{name}{word[len(word.partition('=')[0]) :]}")
        action = actions[name]
        takes_next = action.nargs is None or (action.nargs == "?" and left and left[0] in (action.choices or ()))
        if not sign and takes_next:
            if not left:
                raise refusal(f"{name}: needs a value; `python train.py --hydra-help` lists the options")
            options.append(left.pop(0))
    parser.exit_on_error = False
    try:
        parser.parse_args([word for word in options if word != "--version"])
    except argparse.ArgumentError as error:
        raise refusal(f"{error}; `python train.py --hydra-help` lists the options") from error
    return options, words


def only_one(word: str, names: Iterable[str]) -> str:
    """The option that a shortened one stands for.

    Raises:
        UserError: if there is none, or more than one.
    """
    found = [name for name in names if name.startswith("--") and name.startswith(word) and word.startswith("--")]
    if len(found) == 1:
        return found[0]
    meant = nearest(word, found or names)
    raise refusal(
        f"{shown(word)}: no such option{'' if meant is None else f'; did you mean {meant}?'}; settings are KEY=VALUE, "
        "`python train.py --help` lists the options"
    )


def readable(words: Sequence[str], *, sweeping: bool = False) -> list[str]:
    """Overrides that Hydra's grammar can read.

    Args:
        words: as a person wrote them.
        sweeping: whether they start a sweep, so that `seed=0,1` is two values.

    Returns:
        The same words; a value that is nothing but a text is quoted where the grammar cannot read it.

    Raises:
        UserError: naming the word that cannot be read, or whose key does not exist, and what to write instead.
    """
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parser = OverridesParser.create()
    return [readable_word(word, parser, sweeping=sweeping) for word in words]


def readable_word(word: str, parser: OverridesParser, *, sweeping: bool) -> str:
    """One override that Hydra's grammar can read; see `readable`."""
    from hydra.errors import HydraException

    key, sign, value = word.partition("=")
    try:
        override = parser.parse_override(word)
    except HydraException:
        override = None
    if override is None:
        as_text = f"{key}={quoted(value)}"
        try:
            override = parser.parse_override(as_text) if sign else None
        except HydraException:
            override = None
        if override is None:
            raise refusal(f"{shown(word)}: cannot be read; settings are KEY=VALUE, such as seed=1")
        if (texts := list_of_texts(key, value, parser)) is not None:
            raise refusal(
                f"{shown(word)}: the value cannot be read; it is a list of texts, so quote each of them for the "
                f"program inside the shell's quotes: {texts}"
            )
        if not is_plain_text(value):
            raise refusal(
                f"{shown(word)}: the value cannot be read; if it is a text, quote it for the program inside the "
                f"shell's quotes: {for_shell(key, value)}"
            )
        word = as_text
    name = str(override.key_or_group)
    if not name:
        raise refusal(f"{shown(word)}: has no key; settings are KEY=VALUE, such as seed=1")
    if override.is_delete() and name in set(schema_keys()) - set(groups()):
        raise refusal(f"{shown(word)}: a setting cannot be removed; give it a value, {name}=…")
    is_choice = ("/" in name or name.partition("@")[0] in groups()) and sign and not override.is_sweep_override()
    if is_choice and not isinstance(override.value(), str | list | dict):
        # A choice is the name of a file, also where the grammar reads its name as a number.
        word = f"{key}={quoted(value)}"
    if "/" not in name and "." in name and not name.startswith("hydra.") and not is_setting(name):
        raise refusal(f"{shown(word)}: {unknown_key(name)}")
    if override.is_sweep_override() and not sweeping:
        raise refusal(
            f"{shown(word)}: several values need -m, which runs each of them; for a list write {key}=[…], for a text "
            f"{for_shell(key, value)}"
        )
    return word


def is_plain_text(value: str) -> bool:
    """Whether a value that cannot be read can be nothing but a text: no list, mapping, call, quotes or sweep."""
    return not (value[:1] in "[{'\"" or "," in value or CALLS.match(value) is not None or "${" in value)


def list_of_texts(key: str, value: str, parser: OverridesParser) -> str | None:
    """A list of texts as a person writes it in a shell, where the key takes one and a shell has taken its quotes away.

    Args:
        key: of the override.
        value: what stands there now, such as `[model=sasrec,model=gru4rec]`.
        parser: Hydra's grammar.

    Returns:
        None if the key takes none, or the texts cannot be told apart. A long list is shortened.
    """
    from hydra.core.override_parser.types import Quote, QuotedString
    from hydra.errors import HydraException

    if not is_list_of_texts(key.lstrip("+")) or not (value.startswith("[") and value.endswith("]")):
        return None
    texts = [text.strip().strip("'\"") for text in value[1:-1].split(",")]
    if not value.isprintable() or any(set("[]{}'\"") & set(text) or not text for text in texts):
        return None
    written = f"{key}=[{','.join(QuotedString(text, Quote.double).with_quotes() for text in texts)}]"
    try:
        parser.parse_override(written)
    except HydraException:
        return None
    return shlex.quote(written if len(written) <= LONGEST_LIST else f'{key}=["…","…"]')


def quoted(text: str) -> str:
    """A text in quotes, as Hydra's grammar reads it back."""
    from hydra.core.override_parser.types import Quote, QuotedString

    return QuotedString(text, Quote.double if "'" in text else Quote.single).with_quotes()


def for_shell(key: str, value: str) -> str:
    """An override with a text as its value, as a person writes it in a shell."""
    from hydra.core.override_parser.types import Quote, QuotedString

    text = value.strip("'\"") if value[:1] in "'\"" or value[-1:] in "'\"" else value
    if len(text) > SHOWN or not text.isprintable():
        return f"'{key[:SHOWN]}=\"…\"'"
    return shlex.quote(f"{key}={QuotedString(text, Quote.double).with_quotes()}")


def shown(word: str, most: int = SHOWN) -> str:
    """A word for a message: on one line, and shortened if it is long."""
    text = "".join(letter if letter.isprintable() else "�" for letter in word)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def word_of(key: str | None, words: Sequence[str]) -> str | None:
    """The override of a key, for a message; the key itself if none sets it."""
    if key is None:
        return None
    found = [word for word in words if re.split(r"[=@]", word.lstrip("+~"), maxsplit=1)[0] == key]
    return shown(found[-1] if found else key)


def refusal(text: str) -> UserError:
    """An error with a text that fits a line."""
    return UserError(fitted(text))


def fitted(text: str) -> str:
    """A message on one line, shortened to what a message may have; a list of names is cut at a name."""
    line = "".join(letter if letter.isprintable() else " " for letter in text)
    if len(line) <= LONGEST:
        return line
    ending = ", …; `python train.py --help` lists all" if ", " in line[:LONGEST] else "…"
    cut = line[: LONGEST - len(ending)]
    return (cut.rpartition(", ")[0] if ending != "…" and ", " in cut[100:] else cut) + ending
