"""The knowledge store: each shard is computed once, by any process of the job, and mismatched files are refused."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest
import torch

from support.catalogue import MANY_ITEMS, SHARD_SIZE, context_of, prepare, produce
from support.processes import run_together, start_together
from support.waiting import wait_until
from tslrec.knowledge.store import CATEGORIES, KnowledgeStore
from tslrec.pipeline.inventory import State, inventory
from tslrec.stages import augment
from tslrec.stages.fusion_inputs import Sources, load_input
from tslrec.system.errors import UserError
from tslrec.system.files import write_json
from tslrec.system.shard_locks import ShardLocks

NUM_ITEMS = 11
NUM_SHARDS = -(-MANY_ITEMS // SHARD_SIZE)


def shards_of(folder: Path) -> dict[str, tuple[int, int]]:
    """The inode and the modification time of each shard of an unfinished store, by its number."""
    found = {}
    for shard in folder.glob("artifacts/augment/*.checkpoints/shard-*"):
        status = (shard / "knowledge.safetensors").stat()
        found[shard.name.removeprefix("shard-")] = (status.st_ino, status.st_mtime_ns)
    return found


def kill_after(folder: Path, shards: int) -> None:
    """Starts two processes and kills both once this many shards are finished."""
    started = start_together("catalogue.py", str(folder))
    try:
        wait_until(lambda: len(shards_of(folder)) >= shards, f"{shards} shards are finished", *started)
    finally:
        for process in started:
            process.kill()
            process.communicate()


@pytest.mark.slow
def test_two_processes_that_were_killed_go_on_with_the_missing_shards(tmp_path: Path) -> None:
    prepare(tmp_path, MANY_ITEMS)
    kill_after(tmp_path, random.randint(3, NUM_SHARDS // 2))
    before = shards_of(tmp_path)
    (entry,) = inventory(tmp_path / "artifacts")
    assert (entry.state, entry.note) == (State.STOPPED, f"{len(before)} of {NUM_SHARDS} shards")
    shutil.rmtree(tmp_path / "ready")

    run_together("catalogue.py", str(tmp_path))
    finished = produce(tmp_path)
    assert finished.reused
    # The finished shards are the same files as before, not written again.
    status = {n: (finished.folder / f"knowledge-{n}.safetensors").stat() for n in before}
    assert {n: (each.st_ino, each.st_mtime_ns) for n, each in status.items()} == before
    assert finished.metrics["shards_found"] == len(before)
    assert not list(tmp_path.glob("artifacts/augment/*.checkpoints"))
    store = KnowledgeStore.open(finished.folder)
    new = [shard for number, shard in enumerate(store.shards) if f"{number:05d}" not in before]
    assert len(new) == NUM_SHARDS - len(before)

    # The result equals, to the bit, that of one process that is not killed.
    context = context_of(tmp_path, MANY_ITEMS, augment_shard_size=SHARD_SIZE, augment_batch_size=1)
    augment.run(context)
    alone = KnowledgeStore.open(context.folder)
    for key in ("knowledge", CATEGORIES):
        assert torch.equal(store.table(key)[0 : MANY_ITEMS + 1], alone.table(key)[0 : MANY_ITEMS + 1])


def begin_store(folder: Path, *, without: int) -> None:
    """Leaves an unfinished store that lacks one shard."""
    prepare(folder, NUM_ITEMS)
    augment.run(context_of(folder, NUM_ITEMS, augment_shard_size=4))
    shutil.rmtree(folder / "augment")
    (folder / "augment").mkdir()
    shutil.rmtree(folder / "augment.checkpoints" / f"shard-{without:05d}")


def test_a_resumed_store_keeps_its_own_shard_size(tmp_path: Path) -> None:
    begin_store(tmp_path, without=1)
    metrics = augment.run(context_of(tmp_path, NUM_ITEMS, augment_shard_size=2))
    assert (metrics["shards"], metrics["shards_found"]) == (3, 2)


def test_a_damaged_shard_is_computed_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    begin_store(tmp_path, without=1)
    damaged = tmp_path / "augment.checkpoints" / "shard-00002" / "knowledge.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-4])
    metrics = augment.run(context_of(tmp_path, NUM_ITEMS, augment_shard_size=4))
    assert metrics["shards_found"] == 1
    assert "shard computed again" in caplog.text


def test_resuming_with_another_adapter_is_refused_with_both_hashes(tmp_path: Path) -> None:
    begin_store(tmp_path, without=1)
    plan = tmp_path / "augment.checkpoints" / "plan.json"
    value = json.loads(plan.read_text())
    adapter, value["origin"]["adapter"] = value["origin"]["adapter"], "another"
    write_json(plan, value)
    with pytest.raises(
        UserError, match=rf"^[^\n]*plan.json: made with adapter another, but here it is {adapter[:12]};"
    ):
        augment.run(context_of(tmp_path, NUM_ITEMS))


def test_a_shard_of_another_store_is_refused(tmp_path: Path) -> None:
    begin_store(tmp_path, without=1)
    manifest = tmp_path / "augment.checkpoints" / "shard-00000" / "manifest.json"
    write_json(manifest, {**json.loads(manifest.read_text()), "key": "another"})
    with pytest.raises(UserError, match="of the store another, wanted"):
        augment.run(context_of(tmp_path, NUM_ITEMS))


def finished_store(folder: Path) -> Path:
    """The folder of a finished store of three shards."""
    prepare(folder, NUM_ITEMS)
    augment.run(context_of(folder, NUM_ITEMS, augment_shard_size=4))
    return folder / "augment"


def test_the_fusion_refuses_a_store_of_other_items_with_both_hashes(tmp_path: Path) -> None:
    store = finished_store(tmp_path)
    context = context_of(tmp_path, NUM_ITEMS + 1)
    sources = Sources(context.config, context.interactions, {**context.inputs, "augment": store})
    with pytest.raises(UserError, match=r"made with item_map [0-9a-f]{12}, but here it is [0-9a-f]{12};"):
        load_input(sources, "knowledge_IH")


def test_the_fusion_reads_a_store_slice_by_slice(tmp_path: Path) -> None:
    store = finished_store(tmp_path)
    context = context_of(tmp_path, NUM_ITEMS)
    sources = Sources(context.config, context.interactions, {**context.inputs, "augment": store})
    table = load_input(sources, "knowledge_IH")
    assert not isinstance(table, torch.Tensor)
    assert table.shape == (NUM_ITEMS + 1, 32)
    assert torch.equal(torch.cat([table[0:3], table[3:10], table[10:12]]), table[0:12])


def test_the_inferred_categories_of_an_item_are_a_distribution(tmp_path: Path) -> None:
    distributions_IK = KnowledgeStore.open(finished_store(tmp_path)).table(CATEGORIES)[1 : NUM_ITEMS + 1]
    torch.testing.assert_close(distributions_IK.sum(dim=1), torch.ones(NUM_ITEMS))


@pytest.mark.parametrize("damage", ["shard", "swapped", "index", "store"])
def test_files_that_do_not_fit_each_other_are_refused(damage: str, tmp_path: Path) -> None:
    store = finished_store(tmp_path)
    if damage == "shard":
        (store / "knowledge-00001.safetensors").unlink()
    elif damage == "swapped":
        shutil.copy(store / "knowledge-00002.safetensors", store / "knowledge-00001.safetensors")
    elif damage == "index":
        (store / "index.parquet").write_bytes(b"no")
    else:
        (store / "store.json").write_text("{}")
    with pytest.raises(UserError, match=r"^[^\n]*delete [^\n]* to compute it again$"):
        KnowledgeStore.open(store)


def test_a_shard_is_locked_by_one_process_and_free_once_that_is_killed(tmp_path: Path) -> None:
    (tmp_path / "claims").touch()
    (process,) = start_together("holder.py", str(tmp_path), processes=1)
    with process:
        wait_until((tmp_path / ".held").exists, "the other process holds the piece", process)
        with ShardLocks(tmp_path / "claims") as locks:
            assert not locks.try_acquire(3)
            assert locks.try_acquire(4)
            process.kill()
            process.wait()
            assert locks.try_acquire(3)
