"""What a file of recommendations is made of, and how its users are cut into shards."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tslrec.serving.engine import Ids
from tslrec.serving.recommender import Recommender
from tslrec.serving.streaming.sources import HistorySource
from tslrec.system.errors import UserError

PLAN = "plan.json"
"""File name of the plan, in the folder of the parts."""


@dataclass(frozen=True)
class Request:
    """What is wanted for each user; the fields are the arguments of `Recommender.recommend`.

    Attributes:
        k: length of the lists.
        filter_seen: whether the items of the history are left out.
        candidates_C: numbers of the items that alone may be recommended, rising; None: all.
        unknown_items: `drop` or `refuse`.
        cold: `popular`, `refuse` or `skip`.
    """

    k: int
    filter_seen: bool = True
    candidates_C: Ids | None = None
    unknown_items: str = "drop"
    cold: str = "popular"

    @property
    def protocol(self) -> str:
        """The ranking protocol that the filter equals."""
        return "masked" if self.filter_seen else "unmasked"

    def as_json(self) -> dict[str, Any]:
        """The request for a JSON file; the candidates by their hash."""
        candidates = None if self.candidates_C is None else digest(self.candidates_C.astype(np.int64).tobytes())
        return {
            "k": self.k,
            "keep_seen": not self.filter_seen,
            "candidates": candidates,
            "unknown_items": self.unknown_items,
            "cold": self.cold,
        }


@dataclass(frozen=True)
class Plan:
    """What a file of recommendations is made of.

    Attributes:
        made_of: model, histories and request, as JSON.
        num_users: number of users.
        shard_size: users per shard; the last shard may have fewer.
    """

    made_of: Mapping[str, Any]
    num_users: int
    shard_size: int

    @classmethod
    def of(cls, recommender: Recommender, source: HistorySource, request: Request, shard_size: int) -> Plan:
        """The plan of a new file."""
        made_of = {"model": identity(recommender), "histories": source.identity(), "request": request.as_json()}
        return cls(made_of, source.num_users, shard_size)

    @property
    def num_shards(self) -> int:
        """Number of shards."""
        return -(-self.num_users // self.shard_size)

    @property
    def key(self) -> str:
        """Hex sha256 of the plan."""
        return digest(json.dumps(self.as_json(), sort_keys=True).encode())

    def span(self, number: int) -> slice:
        """The users of a shard."""
        return slice(number * self.shard_size, min((number + 1) * self.shard_size, self.num_users))

    def as_json(self) -> dict[str, Any]:
        """The plan for a JSON file."""
        return {"made_of": dict(self.made_of), "num_users": self.num_users, "shard_size": self.shard_size}

    def require_match(self, wanted: Plan, path: Path) -> None:
        """Refuses a plan that is made of something else; another shard size is no difference.

        Args:
            wanted: of this command.
            path: where this plan is.

        Raises:
            UserError: for the first difference, with both values.
        """
        for part, values in wanted.made_of.items():
            begun = self.made_of.get(part, {})
            for name, value in values.items():
                if begun.get(name) != value:
                    raise UserError(
                        f"{path}: begun with {part} {name} {short(begun.get(name))}, but here it is {short(value)}; "
                        f"repeat the command that began it, or delete {path.parent} to start anew"
                    )


def read_plan(folder: Path) -> Plan | None:
    """The plan of an unfinished file; None if none was written yet.

    Raises:
        UserError: if the plan cannot be read.
    """
    path = folder / PLAN
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        return Plan(dict(value["made_of"]), int(value["num_users"]), int(value["shard_size"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a readable plan ({error}); delete {folder} to start anew") from error


def identity(recommender: Recommender) -> dict[str, Any]:
    """What a recommender is, for a plan: its engine, and the hash of what it was loaded from."""
    loaded = {name: recommender.facts.get(name) for name in ("keys", "data_key", "files")}
    content = digest(json.dumps(loaded, sort_keys=True, default=str).encode())
    return {"engine": recommender.engine.name, "content": content}


def digest(content: bytes) -> str:
    """Hex sha256."""
    return hashlib.sha256(content).hexdigest()


def short(value: object) -> str:
    """A value for a message; of a hash, its first digits."""
    return value[:12] if isinstance(value, str) else str(value)
