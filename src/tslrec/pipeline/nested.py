"""Nested mappings, such as a configuration: their leaves, their keys, and one over another."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of nested mappings, with their keys joined by dots."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def flatten_keys(tree: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The keys of nested mappings, joined by dots; sections and their entries."""
    for name, value in tree.items():
        yield f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from flatten_keys(value, f"{prefix}{name}.")


def filled(section: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """`section` over `defaults`, nested mappings entry by entry."""
    found = dict(defaults)
    for name, value in section.items():
        if isinstance(value, Mapping) and isinstance(default := defaults.get(name), Mapping):
            value = filled(value, default)
        found[name] = value
    return found
