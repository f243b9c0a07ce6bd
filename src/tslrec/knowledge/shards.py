"""An unfinished result of rows: several processes compute its shards, each shard once, even if some are killed.

It is a knowledge store (`tslrec.knowledge.store_plan`) or a table (`tslrec.knowledge.table_plan`). The folder
`<label>-<key>.checkpoints/` holds it until it is finished:

    plan.json     what the rows are made from and how they are cut into shards; written before any shard
    claims        the locks of the shards that a running process is computing
    shard-00007/  a finished shard: written under another name, its manifest last, synced and renamed
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Generic, Self, TypeVar

from safetensors.torch import save_file
from torch import Tensor

from tslrec.knowledge.shard_files import PLAN, ROWS
from tslrec.system.errors import UserError
from tslrec.system.files import write_json
from tslrec.system.shares import CLAIMS, Shares, awaited

P = TypeVar("P", bound="Plan")


@dataclass(frozen=True, kw_only=True)
class Plan(ABC):
    """What rows are made from, and how they are cut into shards.

    Attributes:
        num_rows: number of items to compute.
        shard_size: items per shard; the last shard may have fewer.
        kind: what the rows are, for messages.
    """

    num_rows: int
    shard_size: int
    kind: ClassVar[str]

    @abstractmethod
    def made_from(self) -> dict[str, Any]:
        """What determines the rows, for a JSON file."""

    @staticmethod
    @abstractmethod
    def read_made_from(value: Mapping[str, Any]) -> dict[str, Any]:
        """The further fields of a plan, from what `made_from` wrote.

        Raises:
            ValueError, KeyError or TypeError: if it cannot be read.
        """

    @abstractmethod
    def require_match(self, wanted: Self, path: Path) -> None:
        """Refuses the plan of an earlier run whose rows are made from something else.

        Args:
            wanted: the plan of this run.
            path: of the earlier plan.

        Raises:
            UserError: if they are.
        """

    @property
    def num_shards(self) -> int:
        """Number of shards."""
        return -(-self.num_rows // self.shard_size)

    def span(self, number: int) -> slice:
        """The rows of a shard among the rows that are computed."""
        return slice(number * self.shard_size, min((number + 1) * self.shard_size, self.num_rows))

    def as_json(self) -> dict[str, Any]:
        """The plan for a JSON file."""
        return {**self.made_from(), "num_rows": self.num_rows, "shard_size": self.shard_size}

    @classmethod
    def read(cls, folder: Path) -> Self | None:
        """The plan of an unfinished result; None if none was written yet.

        Raises:
            UserError: if the plan cannot be read.
        """
        path = folder / PLAN
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
            size = max(1, int(value["shard_size"]))
            return cls(**cls.read_made_from(value), num_rows=int(value["num_rows"]), shard_size=size)
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{path}: not a readable plan ({error}); delete {folder} to compute all of it again"
            ) from error


class Shards(Shares, Generic[P]):
    """The shards of one unfinished result.

    Args:
        folder: the folder that holds the plan and the shards.
        plan: the plan in it.

    Attributes:
        plan: see above; `key` is its hex sha256.
    """

    def __init__(self, folder: Path, plan: P) -> None:
        text = json.dumps(plan.as_json(), sort_keys=True)
        super().__init__(folder, plan.num_shards, hashlib.sha256(text.encode()).hexdigest())
        self.kind = plan.kind
        self.plan = plan

    @classmethod
    def begin_or_resume(cls, folder: Path, plan: P) -> Shards[P]:
        """Begins a result, or resumes one with the intact shards of an earlier run. Only rank 0 may call it.

        Args:
            folder: where the shards are written.
            plan: what is wanted. A result that is resumed keeps its own shard size, and a store its scaling to the last
                bit.

        Raises:
            UserError: if the earlier run made its shards from something else.
        """
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CLAIMS).touch()
        begun = type(plan).read(folder)
        if begun is None:
            write_json(folder / PLAN, plan.as_json())
            return cls(folder, plan)
        begun.require_match(plan, folder / PLAN)
        shards = cls(folder, begun)
        shards.remove_damaged()
        return shards

    @classmethod
    def join(cls, folder: Path, kind: type[P], unfinished: Callable[[], bool]) -> Shards[P] | None:
        """Waits for the plan that rank 0 writes. For all other ranks.

        Args:
            folder: the folder that rank 0 writes into.
            kind: of the plan.
            unfinished: whether the result is still unfinished.

        Returns:
            The shards; None if the result was finished first.
        """
        plan = awaited(lambda: kind.read(folder), unfinished)
        return None if plan is None else cls(folder, plan)

    @property
    def finished_rows(self) -> int:
        """How many rows are in finished shards."""
        missing = [self.plan.span(number) for number in self.missing]
        return self.plan.num_rows - sum(span.stop - span.start for span in missing)

    def work(
        self,
        compute: Callable[[slice], Mapping[str, Tensor]],
        *,
        unfinished: Callable[[], bool],
        facts: Callable[[], dict[str, Any]],
        wait_for_others: bool,
    ) -> None:
        """Computes missing shards in ascending order, except those that another process is computing.

        Args:
            compute: computes the arrays of a range of rows.
            unfinished: whether the result is still unfinished.
            facts: what a shard's manifest records of this process.
            wait_for_others: return only when every shard is there, and compute the shards of processes that died.
        """

        def produce(number: int, aside: Path) -> dict[str, Any]:
            save_file(dict(compute(self.plan.span(number))), aside / ROWS)
            return facts()

        self.fill(produce, unfinished=unfinished, wait_for_others=wait_for_others)
