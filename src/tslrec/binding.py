"""Binds a section of the configuration to the signature of the class or function that its `_target_` names."""

from __future__ import annotations

import importlib
import inspect
import typing
from collections.abc import Callable, Collection, Mapping
from typing import Any

from tslrec.config import OWN_KEYS, differing
from tslrec.errors import UserError

NO_SETTINGS = frozenset({"_target_", "title", "place"})
"""Keys of a section on which no result depends."""


def find_target(where: str, section: Mapping[str, Any]) -> Callable[..., Any]:
    """The class or function that a section's `_target_` names.

    Args:
        where: the section's key, for the message.
        section: `_target_` and values.

    Raises:
        UserError: if there is none.
    """
    target = section.get("_target_")
    if not isinstance(target, str) or "." not in target:
        raise UserError(f"{where}._target_={target}: must be the dotted path of a class or function")
    module_name, name = target.rsplit(".", 1)
    try:
        return typing.cast(Callable[..., Any], getattr(importlib.import_module(module_name), name))
    except (ModuleNotFoundError, AttributeError) as error:
        raise UserError(f"{where}._target_={target}: cannot be imported ({error}); correct the path") from error


def check_target(
    where: str, section: Mapping[str, Any], *, given: Collection[str] = (), own: Collection[str] = ()
) -> Callable[..., Any]:
    """Binds a section to the signature of its `_target_`.

    Args:
        where: the section's key, for the message.
        section: `_target_` and values.
        given: parameters that Python fills in.
        own: keys of the section that are not parameters.

    Returns:
        The class or function.
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
            raise UserError(f"{where}.{key}: {target} has no such parameter to set; it has {settable}")
        if not has_type(value, hints.get(key, Any)):
            raise UserError(f"{where}.{key}={value}: must be {description(hints[key])}")
    for parameter in parameters.values():
        if parameter.default is parameter.empty and parameter.name not in {*section, *given}:
            raise UserError(f"{where}.{parameter.name}: {target} needs it; set it")
    return found


def target_settings(where: str, section: Mapping[str, Any]) -> dict[str, Any]:
    """What of a section with a `_target_` determines a result: its name, and what is not at the signature's default.

    The path of the target is left out, since code moves; its last part stays, since a name may be given to another one.
    """
    target = find_target(where, section)
    parameters = inspect.signature(target).parameters
    defaults = {name: each.default for name, each in parameters.items() if each.default is not each.empty}
    settings = {name: value for name, value in section.items() if name not in NO_SETTINGS}
    return {"target": target.__name__, **differing(settings, defaults)}


def description(hint: Any) -> str:
    """What `has_type` asks for, in words."""
    if typing.get_origin(hint) is typing.Literal:
        return f"one of {', '.join(map(str, typing.get_args(hint)))}"
    return f"of type {getattr(hint, '__name__', hint)}"


def has_type(value: Any, hint: Any) -> bool:
    """Whether a plain YAML value fits an annotation; what YAML cannot express fits only itself."""
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
