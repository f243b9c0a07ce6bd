"""A knowledge store in the making: shards that several processes compute, each of them once, whoever is killed.

They lie where a training has its checkpoints, `<label>-<key>.checkpoints/`, until the store is finished:

    plan.json     what the store is made from and how it is cut; written before any shard
    claims        which shard is being computed by a process that lives
    shard-00007/  finished: written aside, its manifest last, synced and renamed
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from tslrec.artifacts import POLL_SECONDS, publish, read_manifest, verify
from tslrec.errors import UserError
from tslrec.files import write_json
from tslrec.knowledge.claims import Claims
from tslrec.knowledge.origin import Origin
from tslrec.llm.scaling import Scaling

PLAN = "plan.json"
CLAIMS = "claims"
SHARD = "shard-"
ROWS = "knowledge.safetensors"


@dataclass(frozen=True)
class Plan:
    """What a store is made from, and how it is cut.

    Attributes:
        origin: what determines the rows.
        scaling: of the item embeddings.
        num_rows: how many items are to be computed.
        shard_size: items of a shard; the last one may have fewer.
    """

    origin: Origin
    scaling: Scaling
    num_rows: int
    shard_size: int

    @property
    def num_shards(self) -> int:
        return -(-self.num_rows // self.shard_size)

    def span(self, number: int) -> slice:
        """The rows of a shard."""
        return slice(number * self.shard_size, min((number + 1) * self.shard_size, self.num_rows))

    def as_json(self) -> dict[str, Any]:
        return {
            "origin": self.origin.as_json(),
            "scaling": self.scaling.as_json(),
            "num_rows": self.num_rows,
            "shard_size": self.shard_size,
        }


def read_plan(folder: Path) -> Plan | None:
    """The plan of a store in the making; None where nothing was planned.

    Raises:
        UserError: if it cannot be read.
    """
    path = folder / PLAN
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        origin, scaling = Origin.from_json(value["origin"]), Scaling.from_json(value["scaling"])
        return Plan(origin, scaling, int(value["num_rows"]), int(value["shard_size"]))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a readable plan ({error}); delete {folder} to compute all of it again") from error


class Shards:
    """The shards of one store in the making.

    Args:
        folder: where they lie; the plan is there.
        plan: the same.
    """

    def __init__(self, folder: Path, plan: Plan) -> None:
        self.folder = folder
        self.plan = plan
        text = json.dumps(plan.as_json(), sort_keys=True)
        self.key = hashlib.sha256(text.encode()).hexdigest()

    @classmethod
    def begin(cls, folder: Path, plan: Plan, tell: Callable[[str], None]) -> Shards:
        """For the first process: a new store, or one that was begun before, by what of it is whole.

        Args:
            folder: where they lie.
            plan: what is wanted; a store that was begun keeps its own size of shards, and its scaling to the last bit.
            tell: says a line to the person.

        Raises:
            UserError: if what is there was made from something else.
        """
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CLAIMS).touch()
        begun = read_plan(folder)
        if begun is None:
            write_json(folder / PLAN, plan.as_json())
            return cls(folder, plan)
        begun.origin.refuse_other(plan.origin, folder / PLAN)
        shards = cls(folder, begun)
        shards.drop_damaged(tell)
        return shards

    @classmethod
    def join(cls, folder: Path, goes_on: Callable[[], bool]) -> Shards | None:
        """For the others: what the first process began; None once there is nothing left to do.

        Args:
            folder: where they lie.
            goes_on: whether the store is still in the making.
        """
        while (plan := read_plan(folder)) is None:
            if not goes_on():
                return None
            time.sleep(POLL_SECONDS)
        return cls(folder, plan)

    def path(self, number: int) -> Path:
        return self.folder / f"{SHARD}{number:05d}"

    @property
    def missing(self) -> list[int]:
        there = {path.name for path in self.folder.glob(f"{SHARD}*")}
        return [number for number in range(self.plan.num_shards) if self.path(number).name not in there]

    def manifest(self, number: int) -> dict[str, Any]:
        """What a finished shard says of itself."""
        return read_manifest(self.path(number))

    def drop_damaged(self, tell: Callable[[str], None]) -> None:
        """Removes what is not whole, to be computed again.

        Raises:
            UserError: if a shard is of another store.
        """
        for number in range(self.plan.num_shards):
            if not (shard := self.path(number)).is_dir():
                continue
            try:
                manifest = read_manifest(shard)
                verify(shard, manifest)
            except UserError as error:
                tell(f"shard computed again: {error}")
                shutil.rmtree(shard)
                continue
            if manifest["key"] != self.key:
                raise UserError(f"{shard}: of the store {manifest['key']}, wanted {self.key}; delete the folder")

    def work(
        self,
        compute: Callable[[slice], Mapping[str, Tensor]],
        *,
        goes_on: Callable[[], bool],
        facts: Callable[[], dict[str, Any]],
        to_the_end: bool,
    ) -> None:
        """Computes shards that nobody has computed and nobody holds, in their order.

        Args:
            compute: the arrays of some rows.
            goes_on: whether the store is still in the making.
            facts: what a shard's manifest records of this process.
            to_the_end: wait for what others hold, and take it over should they end.
        """
        try:
            claims = Claims(self.folder / CLAIMS)
        except FileNotFoundError:
            # All is done, and the first process has cleared it away.
            return
        with claims:
            while missing := self.missing:
                for number in missing:
                    self.compute_if_free(number, claims, compute, goes_on, facts)
                if not (to_the_end and goes_on()):
                    return
                time.sleep(POLL_SECONDS if self.missing else 0)

    def compute_if_free(
        self,
        number: int,
        claims: Claims,
        compute: Callable[[slice], Mapping[str, Tensor]],
        goes_on: Callable[[], bool],
        facts: Callable[[], dict[str, Any]],
    ) -> None:
        """One shard, unless it is there, or another process has it."""
        # In this order: where shards are missing because they were cleared away, the store is no longer in the making.
        if self.path(number).is_dir() or not goes_on() or not claims.take(number):
            return
        try:
            if not self.path(number).is_dir() and goes_on():
                self.write(number, compute(self.plan.span(number)), facts())
        finally:
            claims.let_go(number)

    def write(self, number: int, arrays: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
        """Publishes a shard; only for the process that holds it."""
        aside = self.folder / f".{SHARD}{number:05d}.partial"
        if aside.exists():
            shutil.rmtree(aside)
        aside.mkdir()
        save_file(dict(arrays), aside / ROWS)
        publish(aside, self.path(number), {"key": self.key, "metrics": {}, "process": os.getpid(), **facts})
