"""Every key of the configuration, for messages on a key that does not exist; free of heavy imports."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable, Iterator
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

from tslrec.config import Config
from tslrec.pipeline.choices import candidate_folders, choice
from tslrec.pipeline.nested import flatten_keys

GROUPS_WITH_TARGETS = ("model", "fusion", "logger", "data", "trainer")
"""Groups whose files have keys that no dataclass lists: the parameters of a `_target_`."""


def is_setting(key: str) -> bool:
    """Whether a key can exist: every key below a section without a schema can, such as `model.dropout`."""
    kind: Any = Config
    for part in key.split("."):
        if is_dataclass(kind):
            if part not in {each.name for each in fields(kind)}:
                return False
            kind = typing.get_type_hints(kind)[part]
        else:
            return is_open(kind)
    return True


def is_list_of_texts(key: str) -> bool:
    """Whether a key takes a list of texts, as `members` and `metrics` do."""
    kind: Any = Config
    for part in key.split("."):
        if not is_dataclass(kind) or part not in (hints := typing.get_type_hints(kind)):
            return False
        kind = hints[part]
    return bool(kind == list[str])


def is_open(kind: Any) -> bool:
    """Whether a field of this type may have keys of its own: a mapping, or anything."""
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return any(is_open(each) for each in typing.get_args(kind))
    return kind is Any or kind is dict or typing.get_origin(kind) is dict


def schema_keys(kind: Any = Config, prefix: str = "") -> Iterator[str]:
    """The keys of the dataclasses, with dots."""
    hints = typing.get_type_hints(kind)
    for each in fields(kind):
        yield prefix + each.name
        if is_dataclass(hints[each.name]):
            yield from schema_keys(hints[each.name], f"{prefix}{each.name}.")


@cache
def known_keys() -> tuple[str, ...]:
    """Every key that the dataclasses and the files of `configs` name."""
    found = dict.fromkeys(schema_keys())
    for group in GROUPS_WITH_TARGETS:
        for name in choices_of(group):
            found.update(dict.fromkeys(f"{group}.{key}" for key in flatten_keys(choice(group, name))))
    return tuple(found)


def groups() -> list[str]:
    """The names of the groups of choices, which are folders in `configs`."""
    return sorted({path.name for folder in candidate_folders() if folder.is_dir() for path in folder.iterdir()
                   if path.is_dir()})  # fmt: skip


def choices_of(group: str) -> list[str]:
    """The names of a group's choices in `configs`."""
    return sorted({path.stem for folder in candidate_folders() for path in (folder / group).glob("*.yaml")})


def nearest(word: str, names: Iterable[str]) -> str | None:
    """The most similar of some names, or the first that begins with the word; None if there is none."""
    known = list(names)
    found = difflib.get_close_matches(word, known, 1) or [
        name for name in known if len(word) > 2 and name.startswith(word)
    ]
    return found[0] if found else None


def nearest_key(key: str) -> str | None:
    """The key that a person probably meant: among those of the same section, else among all, else by the last part."""
    section, _, last = key.rpartition(".")
    below = [each for each in known_keys() if each.rpartition(".")[0] == section]
    by_last = {each.rpartition(".")[2]: each for each in below}
    if (found := nearest(last, by_last)) or (found := initials(last, by_last)):
        return by_last[found]
    if found := nearest(key, [*known_keys(), *groups()]):
        return found
    everywhere = {each.rpartition(".")[2]: each for each in reversed(known_keys())}
    found = nearest(last, everywhere)
    return None if found is None else everywhere[found]


def initials(word: str, names: Iterable[str]) -> str | None:
    """The name whose words begin with the letters of `word`, as `lr` stands for `learning_rate`."""
    return next((name for name in names if "".join(part[:1] for part in name.split("_")) == word.lower()), None)


def unknown_key(key: str) -> str:
    """What a message says of a key that does not exist."""
    found = nearest_key(key)
    meant = "" if found is None else f"; did you mean {found}?"
    return f"there is no such setting{meant}"
