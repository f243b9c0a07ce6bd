"""The knowledge store: its shards are computed once, by whoever is there, and what does not fit is refused."""

from __future__ import annotations

import json
import random
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from catalogue import MANY_ITEMS, SHARD_SIZE, context_of, prepare, produce
from processes import run_together, start_together
from tslrec.errors import UserError
from tslrec.files import write_json
from tslrec.inventory import State, inventory
from tslrec.knowledge.claims import Claims
from tslrec.knowledge.store import CATEGORIES, KnowledgeStore
from tslrec.stages import augment
from tslrec.stages.fusion import load_input

NUM_ITEMS = 11
NUM_SHARDS = -(-MANY_ITEMS // SHARD_SIZE)
SECONDS = 240


def shards_of(folder: Path) -> dict[str, tuple[int, int]]:
    """The shards of a store in the making, by which file on the disk each is and when it was written."""
    found = {}
    for shard in folder.glob("artifacts/augment/*.checkpoints/shard-*"):
        status = (shard / "knowledge.safetensors").stat()
        found[shard.name.removeprefix("shard-")] = (status.st_ino, status.st_mtime_ns)
    return found


def kill_after(folder: Path, shards: int) -> None:
    """Starts two processes, and kills both once some shards are there."""
    started = start_together("catalogue.py", str(folder))
    try:
        deadline = time.monotonic() + SECONDS
        while len(shards_of(folder)) < shards:
            assert time.monotonic() < deadline, f"there were no {shards} shards"
            for process in started:
                assert process.poll() is None, process.communicate()[0]
            time.sleep(0.002)
    finally:
        for process in started:
            process.kill()
            process.communicate()


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
    # What was there is there still: the same files, written when they were.
    status = {n: (finished.folder / f"knowledge-{n}.safetensors").stat() for n in before}
    assert {n: (each.st_ino, each.st_mtime_ns) for n, each in status.items()} == before
    assert finished.metrics["shards_found"] == len(before)
    assert not list(tmp_path.glob("artifacts/augment/*.checkpoints"))
    store = KnowledgeStore.open(finished.folder)
    new = [shard for number, shard in enumerate(store.shards) if f"{number:05d}" not in before]
    assert len(new) == NUM_SHARDS - len(before)

    # And to the bit what one process computes that nobody kills.
    context = context_of(tmp_path, MANY_ITEMS, augment_shard_size=SHARD_SIZE, augment_batch_size=1)
    augment.run(context)
    alone = KnowledgeStore.open(context.folder)
    for key in ("knowledge", CATEGORIES):
        assert torch.equal(store.table(key)[0 : MANY_ITEMS + 1], alone.table(key)[0 : MANY_ITEMS + 1])


def begun(folder: Path, *, without: int) -> None:
    """A store in the making that lacks a shard."""
    prepare(folder, NUM_ITEMS)
    augment.run(context_of(folder, NUM_ITEMS, augment_shard_size=4))
    shutil.rmtree(folder / "augment")
    (folder / "augment").mkdir()
    shutil.rmtree(folder / "augment.checkpoints" / f"shard-{without:05d}")


def test_a_store_that_was_begun_keeps_its_own_size_of_shards(tmp_path: Path) -> None:
    begun(tmp_path, without=1)
    metrics = augment.run(context_of(tmp_path, NUM_ITEMS, augment_shard_size=2))
    assert (metrics["shards"], metrics["shards_found"]) == (3, 2)


def test_a_shard_that_is_damaged_is_computed_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begun(tmp_path, without=1)
    damaged = tmp_path / "augment.checkpoints" / "shard-00002" / "knowledge.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:-4])
    metrics = augment.run(context_of(tmp_path, NUM_ITEMS, augment_shard_size=4))
    assert metrics["shards_found"] == 1
    assert "shard computed again" in capsys.readouterr().out


def test_what_was_begun_with_another_adapter_is_refused_with_both(tmp_path: Path) -> None:
    begun(tmp_path, without=1)
    plan = tmp_path / "augment.checkpoints" / "plan.json"
    value = json.loads(plan.read_text())
    adapter, value["origin"]["adapter"] = value["origin"]["adapter"], "another"
    write_json(plan, value)
    with pytest.raises(
        UserError, match=rf"^[^\n]*plan.json: made with adapter another, but here it is {adapter[:12]};"
    ):
        augment.run(context_of(tmp_path, NUM_ITEMS))


def test_a_shard_of_another_store_is_refused(tmp_path: Path) -> None:
    begun(tmp_path, without=1)
    manifest = tmp_path / "augment.checkpoints" / "shard-00000" / "manifest.json"
    write_json(manifest, {**json.loads(manifest.read_text()), "key": "another"})
    with pytest.raises(UserError, match="of the store another, wanted"):
        augment.run(context_of(tmp_path, NUM_ITEMS))


def finished_store(folder: Path) -> Path:
    prepare(folder, NUM_ITEMS)
    augment.run(context_of(folder, NUM_ITEMS, augment_shard_size=4))
    return folder / "augment"


def test_a_store_of_other_items_is_refused_by_the_fusion_with_both_maps(tmp_path: Path) -> None:
    store = finished_store(tmp_path)
    context = context_of(tmp_path, NUM_ITEMS + 1)
    context = replace(context, inputs={**context.inputs, "augment": store})
    with pytest.raises(UserError, match=r"made with item_map [0-9a-f]{12}, but here it is [0-9a-f]{12};"):
        load_input(context, "knowledge_IH")


def test_the_fusion_reads_a_store_slice_by_slice(tmp_path: Path) -> None:
    store = finished_store(tmp_path)
    context = context_of(tmp_path, NUM_ITEMS)
    table = load_input(replace(context, inputs={**context.inputs, "augment": store}), "knowledge_IH")
    assert not isinstance(table, torch.Tensor)
    assert table.shape == (NUM_ITEMS + 1, 32)
    assert torch.equal(torch.cat([table[0:3], table[3:10], table[10:12]]), table[0:12])


def test_the_fusion_reads_the_inferred_categories_of_a_store(tmp_path: Path) -> None:
    store = finished_store(tmp_path)
    context = context_of(tmp_path, NUM_ITEMS)
    table = load_input(replace(context, inputs={**context.inputs, "augment": store}), "categories_IK")
    distributions_IK = table[1 : NUM_ITEMS + 1]
    assert torch.equal(distributions_IK, KnowledgeStore.open(store).table(CATEGORIES)[1 : NUM_ITEMS + 1])
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


def test_a_piece_is_held_by_one_process_and_free_once_it_is_let_go(tmp_path: Path) -> None:
    (tmp_path / "claims").touch()
    (process,) = start_together("holder.py", str(tmp_path), processes=1)
    with process:
        deadline = time.monotonic() + SECONDS
        while not (tmp_path / "held").exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        with Claims(tmp_path / "claims") as claims:
            assert not claims.take(3)
            assert claims.take(4)
            process.kill()
            process.wait()
            assert claims.take(3)
