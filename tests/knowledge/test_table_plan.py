"""An unfinished table keeps its finished shards, and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tslrec.knowledge.shards import Shards
from tslrec.knowledge.store import KNOWLEDGE
from tslrec.knowledge.table_plan import TablePlan, finished_table
from tslrec.system.errors import UserError
from tslrec.training.checkpoints import Checkpoints

ORIGIN = {"titles": "abc", "layer": "last"}


def begin(folder: Path, **changes: Any) -> Shards[TablePlan]:
    settings: dict[str, Any] = {"origin": ORIGIN, "num_rows": 7, "shard_size": 3, **changes}
    return Shards.begin_or_resume(folder, TablePlan(**settings))


def rows_of(items: range) -> Tensor:
    return torch.tensor([[float(item), -float(item)] for item in items])


def work(shards: Shards[TablePlan], stop_after: int = 99) -> list[range]:
    """Computes what is missing; a `KeyboardInterrupt` ends it after so many shards."""
    computed: list[range] = []

    def compute(span: slice) -> dict[str, Tensor]:
        if len(computed) == stop_after:
            raise KeyboardInterrupt
        computed.append(range(span.start + 1, span.stop + 1))
        return {KNOWLEDGE: rows_of(computed[-1])}

    try:
        shards.work(compute, unfinished=lambda: True, facts=lambda: {}, wait_for_others=True)
    except KeyboardInterrupt:
        assert len(computed) == stop_after
    return computed


def test_the_table_has_a_row_for_each_item_and_padding(tmp_path: Path) -> None:
    shards = begin(tmp_path)
    assert work(shards) == [range(1, 4), range(4, 7), range(7, 8)]
    assert torch.equal(finished_table(shards), torch.cat([torch.zeros(1, 2), rows_of(range(1, 8))]))


def test_a_resumed_table_computes_what_is_missing_in_its_own_shards(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path).future == "starts it anew"
    work(begin(tmp_path), stop_after=1)
    assert Checkpoints(tmp_path).future == "computes the shards that are missing"
    shards = begin(tmp_path, shard_size=5)
    assert shards.finished_rows == 3
    assert work(shards) == [range(4, 7), range(7, 8)]
    assert torch.equal(finished_table(shards)[1:], rows_of(range(1, 8)))


def test_a_damaged_shard_is_computed_again(tmp_path: Path) -> None:
    work(begin(tmp_path))
    (tmp_path / "shard-00001" / "knowledge.safetensors").write_bytes(b"half")
    shards = begin(tmp_path)
    assert work(shards) == [range(4, 7)]
    assert torch.equal(finished_table(shards)[1:], rows_of(range(1, 8)))


def test_shards_of_something_else_are_refused(tmp_path: Path) -> None:
    begin(tmp_path)
    with pytest.raises(UserError, match="made from something else than this run's; delete the folder"):
        begin(tmp_path, origin={**ORIGIN, "layer": "mean"})
    (tmp_path / "plan.json").write_text("{")
    with pytest.raises(UserError, match="not a readable plan"):
        begin(tmp_path)


def test_another_process_joins_or_finds_the_table_finished(tmp_path: Path) -> None:
    assert Shards.join(tmp_path, TablePlan, lambda: False) is None
    shards = begin(tmp_path)
    joined = Shards.join(tmp_path, TablePlan, lambda: True)
    assert joined is not None
    assert joined.key == shards.key
