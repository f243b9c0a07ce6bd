"""Binds a section of the configuration to the signature of the class or function that its `_target_` names."""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any

from tslrec.config import differing
from tslrec.settings.choices import OWN_KEYS
from tslrec.system.errors import UserError
from tslrec.system.optional_packages import line_of_missing
from tslrec.system.shown_values import shown

NO_SETTINGS = frozenset({"_target_", "title", "place"})
"""Keys of a section that do not influence a result."""


def find_target(where: str, section: Mapping[str, Any]) -> Callable[..., Any]:
    """Imports the class or function that a section's `_target_` names.

    Args:
        where: the section's key in the configuration, for the error message.
        section: `_target_` and the parameters' values.

    Raises:
        UserError: if `_target_` is no dotted path, or cannot be imported, or needs an optional package that is missing.
    """
    target = section.get("_target_")
    if not isinstance(target, str) or not all(part.isidentifier() for part in target.split(".")) or "." not in target:
        raise UserError(f"{where}._target_={shown(target)}: must be the dotted path of a class or function")
    module_name, name = target.rsplit(".", 1)
    try:
        found = getattr(importlib.import_module(module_name), name)
    except (ModuleNotFoundError, AttributeError) as error:
        missing = line_of_missing(error) if isinstance(error, ModuleNotFoundError) else None
        raise UserError(
            missing
            or f"{where}._target_={target}: cannot be imported ({error}); correct the path, or check out the commit "
            "that has it"
        ) from error
    try:
        inspect.signature(found)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}._target_={target}: is no class or function with parameters of its own") from error
    return typing.cast(Callable[..., Any], found)


def check_target(
    where: str, section: Mapping[str, Any], *, given: Collection[str] = (), own: Collection[str] = ()
) -> Callable[..., Any]:
    """Checks a section against the signature of its `_target_`: names, types, and that no required value is missing.

    Args:
        where: the section's key in the configuration, for the error message.
        section: `_target_` and the parameters' values.
        given: names of the parameters that the code passes itself, and that the section may not set.
        own: further keys of the section that are not parameters, beside `OWN_KEYS`.

    Returns:
        The class or function.

    Raises:
        UserError: for the first value that does not fit, or is missing.
    """
    found, target = find_target(where, section), section["_target_"]
    parameters = {
        parameter.name: parameter
        for parameter in inspect.signature(found).parameters.values()
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    }
    hints = typing.get_type_hints(found.__init__ if inspect.isclass(found) else found)
    for key, value in section.items():
        if key == "_target_" or key in OWN_KEYS or key in own:
            continue
        if key not in parameters or key in given:
            settable = ", ".join(sorted(parameters.keys() - set(given)))
            raise UserError(f"{where}.{shown(key)}: {target} has no such parameter to set; it has {settable}")
        if not has_type(value, hints.get(key, Any)):
            raise UserError(f"{where}.{key}={shown(value)}: must be {description(hints[key])}")
    for parameter in parameters.values():
        if parameter.default is parameter.empty and parameter.name not in {*section, *given}:
            raise UserError(f"{where}.{parameter.name}: {target} needs it; set it")
    return found


def target_settings(where: str, section: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a section with a `_target_` that determines a result: its name and the values that are not defaults.

    Of the target's dotted path only the last part is kept, so that moving code changes no key. The last part is
    kept because the section's `name` could be given to another class later.

    Args:
        where: the section's key in the configuration, for the error message.
        section: `_target_` and the parameters' values.

    Raises:
        UserError: if the target cannot be imported.
    """
    target = find_target(where, section)
    parameters = inspect.signature(target).parameters
    defaults = {name: each.default for name, each in parameters.items() if each.default is not each.empty}
    settings = {name: value for name, value in section.items() if name not in NO_SETTINGS}
    return {"target": target.__name__, **differing(settings, defaults)}


def description(hint: Any) -> str:
    """An annotation in words, as an error message names what `has_type` expects."""
    if typing.get_origin(hint) is typing.Literal:
        return f"one of {', '.join(map(str, typing.get_args(hint)))}"
    return f"of type {getattr(hint, '__name__', hint)}"


def has_type(value: Any, hint: Any) -> bool:
    """Whether a value from YAML fits a type annotation.

    An int fits `float`, a bool fits neither `int` nor `float`; the elements of lists and dicts are not checked.
    """
    if hint is Any:
        return True
    origin = typing.get_origin(hint)
    if origin is not None:
        arguments = typing.get_args(hint)
        if origin in (list, tuple, dict):
            return isinstance(value, (list, tuple) if origin is not dict else dict)
        if origin is typing.Literal:
            return value in arguments
        return any(has_type(value, argument) for argument in arguments)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, hint) if isinstance(hint, type) else True
