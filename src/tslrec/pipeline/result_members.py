"""The members of a recorded result, and what tells them from others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tslrec.stages.method_stages import member_name


def members_of(result: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The entries of a result's members; none of a method that reads none."""
    found: Sequence[Mapping[str, Any]] = result.get("members") or ()
    return found


def of_members(
    result: Mapping[str, Any], read: Callable[[Mapping[str, Any]], Mapping[str, Any]]
) -> Iterator[tuple[str, Any]]:
    """What tells a result's members from others, by names such as `member-1.model.num_layers`.

    A member's seed counts from the run's: runs of several seeds have the same members where each has its own seed, or
    one that is as far from the run's. The data set is the run's.

    Args:
        result: an entry of a `result.json`.
        read: gives what tells a result without its seed from others, by name.
    """
    for number, member in enumerate(members_of(result), 1):
        prefix = member_name(number)
        yield f"{prefix}.method", member["method"]
        yield f"{prefix}.seed", member["seed"] - result["seed"]
        for name, value in read(member).items():
            if not name.startswith("data."):
                yield f"{prefix}.{name}", value
