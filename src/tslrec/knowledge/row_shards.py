"""An unfinished table of rows, one per item: several processes compute its shards, each once, even if some are killed.

The folder `<label>-<key>.checkpoints/` holds it until the table is finished, as it holds an unfinished knowledge store
(`tslrec.knowledge.shards`); here a row depends on nothing but an item.

Shapes: I items (row 0 of the table is padding), R items of a shard, H size of a row.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from tslrec.knowledge.shard_files import PLAN, ROWS
from tslrec.knowledge.store import KNOWLEDGE
from tslrec.system.errors import UserError
from tslrec.system.files import write_json
from tslrec.system.row_tables import FileTable
from tslrec.system.shares import CLAIMS, Shares, awaited


class RowShards(Shares):
    """The shards of one unfinished table.

    Args:
        folder: holds the plan and the shards.
        plan: what is in `plan.json`: `origin`, what the rows are made from; `num_rows`, I; and `shard_size`, R of all
            shards but the last, which may have fewer.

    Attributes:
        plan: see above; `key` is its hex sha256.
    """

    kind = "table"

    def __init__(self, folder: Path, plan: Mapping[str, Any]) -> None:
        num_shards = -(-int(plan["num_rows"]) // int(plan["shard_size"]))
        super().__init__(folder, num_shards, hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest())
        self.plan = plan

    @classmethod
    def begin_or_resume(cls, folder: Path, origin: Mapping[str, Any], *, num_rows: int, shard_size: int) -> RowShards:
        """Begins a table, or resumes one with the intact shards of an earlier run. Only rank 0 may call it.

        Args:
            folder: where the shards are written.
            origin: what the rows are made from, in the types that JSON keeps.
            num_rows: I.
            shard_size: items per shard; a table that is resumed keeps its own.

        Raises:
            UserError: if the earlier run made its shards from something else.
        """
        folder.mkdir(parents=True, exist_ok=True)
        (folder / CLAIMS).touch()
        begun = read_plan(folder)
        if begun is None:
            plan = {"origin": dict(origin), "num_rows": num_rows, "shard_size": shard_size}
            write_json(folder / PLAN, plan)
            return cls(folder, plan)
        if begun["origin"] != origin or begun["num_rows"] != num_rows:
            raise UserError(
                f"{folder / PLAN}: the shards beside it are made from something else than this run's; delete the folder"
            )
        shards = cls(folder, begun)
        shards.remove_damaged()
        return shards

    @classmethod
    def join(cls, folder: Path, unfinished: Callable[[], bool]) -> RowShards | None:
        """Waits for the plan that rank 0 writes. For all other ranks.

        Args:
            folder: the folder that rank 0 writes into.
            unfinished: whether the table is still unfinished.

        Returns:
            The shards; None if the table was finished first.
        """
        plan = awaited(lambda: read_plan(folder), unfinished)
        return None if plan is None else cls(folder, plan)

    def items(self, number: int) -> range:
        """The items of a shard, from 1."""
        size, last = int(self.plan["shard_size"]), int(self.plan["num_rows"])
        return range(1 + number * size, 1 + min((number + 1) * size, last))

    @property
    def finished_items(self) -> int:
        """How many items have their rows in a finished shard."""
        missing = set(self.missing)
        return sum(len(self.items(number)) for number in range(self.num_shards) if number not in missing)

    def work(
        self,
        compute: Callable[[range], Tensor],
        *,
        unfinished: Callable[[], bool],
        facts: Callable[[], dict[str, Any]],
        wait_for_others: bool,
    ) -> None:
        """Computes missing shards in ascending order, except those that another process is computing.

        Args:
            compute: computes the rows `[R, H]` of some items.
            unfinished: whether the table is still unfinished.
            facts: what a shard's manifest records of this process.
            wait_for_others: return only when every shard is there, and compute the shards of processes that died.
        """

        def produce(number: int, aside: Path) -> dict[str, Any]:
            save_file({KNOWLEDGE: compute(self.items(number)).contiguous()}, aside / ROWS)
            return facts()

        self.fill(produce, unfinished=unfinished, wait_for_others=wait_for_others)

    def table(self) -> Tensor:
        """The finished table `[I + 1, H]`; padding is zero. All shards must be finished."""
        rows = [FileTable(self.path(number) / ROWS, KNOWLEDGE)[:] for number in range(self.num_shards)]
        return F.pad(torch.cat(rows), (0, 0, 1, 0))


def read_plan(folder: Path) -> dict[str, Any] | None:
    """The plan of an unfinished table; None if none was written yet.

    Raises:
        UserError: if the plan cannot be read.
    """
    path = folder / PLAN
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        origin, num_rows, shard_size = dict(value["origin"]), int(value["num_rows"]), int(value["shard_size"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not a readable plan ({error}); delete {folder} to compute all of it again") from error
    return {"origin": origin, "num_rows": num_rows, "shard_size": max(1, shard_size)}
