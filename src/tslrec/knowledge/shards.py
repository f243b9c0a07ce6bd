"""An unfinished knowledge store: several processes compute its shards, each shard once, even if some are killed.

The folder `<label>-<key>.checkpoints/` holds it until the store is finished:

    plan.json     what the store is made from and how it is cut into shards; written before any shard
    claims        the locks of the shards that a running process is computing
    shard-00007/  a finished shard: written under another name, its manifest last, synced and renamed
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from tslrec.knowledge.origin import Origin
from tslrec.knowledge.shard_files import PLAN, ROWS
from tslrec.llm.item_scaling import Scaling
from tslrec.system.errors import UserError
from tslrec.system.files import write_json
from tslrec.system.shares import CLAIMS, Shares, awaited


@dataclass(frozen=True)
class Plan:
    """What a store is made from, and how it is cut into shards.

    Attributes:
        origin: what determines the rows.
        scaling: standardises the item embeddings.
        num_rows: number of items to compute.
        shard_size: items per shard; the last shard may have fewer.
    """

    origin: Origin
    scaling: Scaling
    num_rows: int
    shard_size: int

    @property
    def num_shards(self) -> int:
        """Number of shards."""
        return -(-self.num_rows // self.shard_size)

    def span(self, number: int) -> slice:
        """The rows of a shard among the rows that are computed."""
        return slice(number * self.shard_size, min((number + 1) * self.shard_size, self.num_rows))

    def as_json(self) -> dict[str, Any]:
        """The plan for a JSON file."""
        return {
            "origin": self.origin.as_json(),
            "scaling": self.scaling.as_json(),
            "num_rows": self.num_rows,
            "shard_size": self.shard_size,
        }


def read_plan(folder: Path) -> Plan | None:
    """The plan of an unfinished store; None if none was written yet.

    Raises:
        UserError: if the plan cannot be read.
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


class Shards(Shares):
    """The shards of one unfinished store.

    Args:
        folder: the folder that holds the plan and the shards.
        plan: the plan in it.

    Attributes:
        plan: see above; `key` is its hex sha256.
    """

    kind = "store"

    def __init__(self, folder: Path, plan: Plan) -> None:
        text = json.dumps(plan.as_json(), sort_keys=True)
        super().__init__(folder, plan.num_shards, hashlib.sha256(text.encode()).hexdigest())
        self.plan = plan

    @classmethod
    def begin_or_resume(cls, folder: Path, plan: Plan) -> Shards:
        """Begins a store, or resumes one with the intact shards of an earlier run. Only rank 0 may call it.

        Args:
            folder: where the shards are written.
            plan: what is wanted. A store that is resumed keeps its own shard size, and its scaling to the last bit.

        Raises:
            UserError: if the earlier run made its shards from something else.
        """
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CLAIMS).touch()
        begun = read_plan(folder)
        if begun is None:
            write_json(folder / PLAN, plan.as_json())
            return cls(folder, plan)
        begun.origin.require_match(plan.origin, folder / PLAN)
        shards = cls(folder, begun)
        shards.remove_damaged()
        return shards

    @classmethod
    def join(cls, folder: Path, unfinished: Callable[[], bool]) -> Shards | None:
        """Waits for the plan that rank 0 writes. For all other ranks.

        Args:
            folder: the folder that rank 0 writes into.
            unfinished: whether the store is still unfinished.

        Returns:
            The shards; None if the store was finished first.
        """
        plan = awaited(lambda: read_plan(folder), unfinished)
        return None if plan is None else cls(folder, plan)

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
            unfinished: whether the store is still unfinished.
            facts: what a shard's manifest records of this process.
            wait_for_others: return only when every shard is there, and compute the shards of processes that died.
        """

        def produce(number: int, aside: Path) -> dict[str, Any]:
            save_file(dict(compute(self.plan.span(number))), aside / ROWS)
            return facts()

        self.fill(produce, unfinished=unfinished, wait_for_others=wait_for_others)
