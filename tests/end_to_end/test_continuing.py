"""`continue_from`: a finished run trains on with users and items that came since, by every method that can."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

import tslrec
from support.grown_market import CATEGORIES, COLD, ITEMS, OLD_ITEMS, OLD_USERS, SETTINGS, USERS, write_market
from support.in_process import Ended, train_here
from support.runs import train, train_until_killed
from tslrec.data import parquet
from tslrec.data.interactions import TEST, Interactions
from tslrec.knowledge.store import CATEGORIES as CATEGORY_SHARES
from tslrec.knowledge.store import KNOWLEDGE, KnowledgeStore
from tslrec.pipeline.inventory import inventory, left_over
from tslrec.stages import shard_filling
from tslrec.stages.carrying import numbers_before
from tslrec.system.hashing import file_sha256
from tslrec.system.manifests import KEY_LENGTH, MANIFEST, read_manifest, verify

METHODS = ("base", "ci", "tslrec")


@dataclass(frozen=True)
class Finished:
    """A finished run: how it ended, its folder, and the results of its methods."""

    ended: Ended
    folder: Path
    results: dict[str, Any]

    def stage(self, name: str, method: str = "tslrec") -> Path:
        return Path(self.results[method]["stages"][name]["folder"])

    def key(self, name: str, method: str = "tslrec") -> str:
        return str(self.results[method]["stages"][name]["key"])

    def inputs(self, name: str, method: str = "tslrec") -> dict[str, str]:
        return dict(read_manifest(self.stage(name, method))["inputs"])

    def data(self) -> Interactions:
        key = self.inputs("backbone", list(self.results)[-1])["data"]
        (folder,) = (self.folder.parent.parent / "data").glob(f"*-{key[:KEY_LENGTH]}")
        return parquet.load(folder, "market")


def run(folder: Path, *overrides: str) -> Finished:
    before = set((folder / "artifacts" / "runs").glob("*"))
    ended = train_here(*SETTINGS, *overrides, folder=folder)
    assert ended.code == 0, ended.err
    (found,) = set((folder / "artifacts" / "runs").glob("*")) - before
    results = json.loads((found / "result.json").read_text())["results"]
    return Finished(ended, found, {result["method"]: result for result in results})


@dataclass(frozen=True)
class Grown:
    """A market that grew: the run before, the run that continues it, and one that trains anew."""

    folder: Path
    old: Finished
    continued: Finished
    anew: Finished
    computed: Sequence[int]
    """Items in each call of the augmentation by the continued run."""
    manifests: dict[Path, str]
    """The manifests of the old run's results, before it was continued."""

    @property
    def old_numbers(self) -> Tensor:
        """The old number of each of today's items, -1 of a new one."""
        return torch.from_numpy(numbers_before(self.old.data().ids.items, self.continued.data().ids.items))


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Grown:
    folder = tmp_path_factory.mktemp("grown")
    old_file, grown_file = write_market(folder)
    methods = ("method=tslrec", "compare=[base,ci]")
    old = run(folder, *methods, f"data.path={old_file}")
    manifests = {path: path.read_text() for path in (folder / "artifacts").glob(f"*/*/{MANIFEST}")}
    computed: list[int] = []
    really = shard_filling.augment

    def spy(model: Any, items_RD: Tensor, **settings: Any) -> Any:
        computed.append(len(items_RD))
        return really(model, items_RD, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shard_filling, "augment", spy)
        continued = run(folder, *methods, f"data.path={grown_file}", f"continue_from={old.folder}")
    anew = run(folder, *methods, f"data.path={grown_file}")
    return Grown(folder, old, continued, anew, computed, manifests)


def test_embeddings_of_old_items_stay_to_the_bit_where_the_knowledge_was_made_from_them(grown: Grown) -> None:
    before, after = (
        load_file(each.stage("backbone") / "item_embeddings.safetensors")["item_embeddings"]
        for each in (grown.old, grown.continued)
    )
    numbers = grown.old_numbers
    assert (numbers[1:] > 0).sum() == OLD_ITEMS
    assert not torch.equal(numbers[numbers >= 0], torch.arange(OLD_ITEMS + 1))
    assert torch.equal(after[numbers >= 0], before[numbers[numbers >= 0]])
    assert (after[numbers < 0].norm(dim=1) > 0).all()


def test_the_plain_backbone_trains_all_of_it_on(grown: Grown) -> None:
    old, continued = (
        load_file(each.stage("backbone", "base") / "weights.safetensors") for each in (grown.old, grown.continued)
    )
    assert grown.continued.key("backbone", "base") != grown.continued.key("backbone", "tslrec")
    assert grown.continued.key("backbone", "ci") == grown.continued.key("backbone", "tslrec")
    assert not torch.equal(old["position_embedding"], continued["position_embedding"])
    numbers = grown.old_numbers
    moved = continued["item_embedding.weight"][numbers > 0] - old["item_embedding.weight"][numbers[numbers > 0]]
    assert 0 < moved.abs().max() < 0.1


def test_clusters_and_centroids_stay_and_preferences_are_counted_again(grown: Grown) -> None:
    before, after = (
        load_file(each.stage("preferences") / "preferences.safetensors") for each in (grown.old, grown.continued)
    )
    numbers = grown.old_numbers
    assert torch.equal(after["centroids"], before["centroids"])
    assert torch.equal(after["clusters"][numbers >= 0], before["clusters"][numbers[numbers >= 0]])
    embeddings = load_file(grown.continued.stage("backbone") / "item_embeddings.safetensors")["item_embeddings"]
    nearest = torch.cdist(embeddings[numbers < 0], after["centroids"]).argmin(dim=1)
    assert torch.equal(after["clusters"][numbers < 0], nearest)
    assert after["preferences"].shape == (USERS, CATEGORIES)


def test_the_adapter_is_kept_and_only_new_items_run_through_the_language_model(grown: Grown) -> None:
    assert grown.continued.key("sft") == grown.old.key("sft")
    assert grown.continued.stage("sft") == grown.old.stage("sft")
    assert grown.computed == [ITEMS - OLD_ITEMS + len(COLD)]
    before, after = (KnowledgeStore.open(each.stage("augment")) for each in (grown.old, grown.continued))
    numbers = grown.old_numbers
    for name in (KNOWLEDGE, CATEGORY_SHARES):
        whole, earlier = after.table(name)[:], before.table(name)[:]
        assert torch.equal(whole[numbers > 0], earlier[numbers[numbers > 0]])


def test_results_of_continued_and_fresh_trainings_never_mix(grown: Grown) -> None:
    for method in METHODS:
        for name in grown.continued.results[method]["stages"]:
            keys = {each.key(name, method) for each in (grown.old, grown.continued, grown.anew)}
            assert len(keys) == (2 if name == "sft" else 3)
            if name != "sft":
                assert grown.continued.inputs(name, method)["earlier"] == grown.old.key(name, method)
            assert "earlier" not in grown.anew.inputs(name, method)


def test_the_earlier_results_are_untouched_and_none_of_them_is_left_over(grown: Grown) -> None:
    for path, text in grown.manifests.items():
        assert path.read_text() == text
        verify(path.parent, read_manifest(path.parent))
    entries = inventory(grown.folder / "artifacts")
    assert left_over(grown.folder / "artifacts", entries) == []


def test_the_report_says_what_changed(grown: Grown) -> None:
    out = " ".join(grown.continued.ended.out.split())
    assert f"Continues {grown.old.folder.name}" in out
    assert f"Items: {OLD_ITEMS} before, {ITEMS + 2} now; {ITEMS - OLD_ITEMS + 2} new, 0 gone, 2 without training" in out
    assert f"Users: {OLD_USERS} before, {USERS} now; {USERS - OLD_USERS} new, 0 gone" in out
    assert f"warm ({USERS - 2})" in out
    assert "cold (2)" in out
    assert "sft kept (" in out
    for title in ("Base", "CI", "TSLRec"):
        assert f"{title}: " in out
    assert "Continues" not in grown.anew.ended.out
    metrics = grown.continued.results["tslrec"]["metrics"]
    warm, cold = metrics["warm/masked/HR@10"], metrics["cold/masked/HR@10"]
    assert metrics["test/masked/HR@10"] == pytest.approx((warm * (USERS - 2) + cold * 2) / USERS)
    for part in ("before", "test", "warm", "cold"):
        assert f"{metrics[f'{part}/masked/NDCG@10']:.4f}" in out


@pytest.mark.parametrize("method", METHODS)
def test_the_continued_recommender_is_loaded_and_ranks_as_it_was_tested(method: str, grown: Grown) -> None:
    recommender = tslrec.load(grown.continued.folder, method=method)
    data = grown.continued.data()
    histories = [[data.ids.items[item] for item in data.sequence(user)[:-TEST]] for user in range(data.num_users)]
    frame = recommender.recommend(histories, k=data.num_items, filter_seen=False)
    assert set(frame["item"]) == set(data.ids.items[1:])
    found = {(row["user"], row["item"]): row["rank"] for row in frame.iter_rows(named=True)}
    last = list(grown.continued.results[method]["stages"])
    ranks = load_file(grown.continued.stage("fusion" if "fusion" in last else "backbone", method) / "ranks.safetensors")
    for user, rank in zip(ranks["users"].tolist(), ranks["unmasked"].tolist(), strict=True):
        target = data.ids.items[data.sequence(user)[-TEST]]
        # The two cold items are alike, so a tie at their rank is counted by halves.
        assert abs(found[user, target] - rank) <= (0.5 if target in COLD else 0)


def test_the_fusion_begins_with_the_earlier_weights(grown: Grown) -> None:
    slow = run(
        grown.folder,
        "method=tslrec",
        f"data.path={grown.folder / 'grown.csv'}",
        f"continue_from={grown.old.folder}",
        "training.learning_rate=1e-9",
    )
    before, after = (load_file(each.stage("fusion") / "weights.safetensors") for each in (grown.old, slow))
    numbers = grown.old_numbers
    for name, value in before.items():
        now = after[name][numbers > 0] if name.endswith("id_embedding.weight") else after[name]
        then = value[numbers[numbers > 0]] if name.endswith("id_embedding.weight") else value
        torch.testing.assert_close(now, then, rtol=0, atol=1e-6)
    # The same users rank the same old items alike: the scaling of the knowledge is the old one, too.
    scores = []
    for each in (grown.old, slow):
        items = [f"item{number:04d}" for number in range(OLD_ITEMS)]
        frame = tslrec.load(each.folder, method="tslrec").recommend(
            [["item0003", "item0007"]], k=OLD_ITEMS, filter_seen=False, only=items
        )
        scores.append(dict(zip(frame["item"], frame["score"], strict=True)))
    assert scores[0].keys() == scores[1].keys()
    assert np.allclose([scores[0][item] for item in scores[0]], [scores[1][item] for item in scores[0]], atol=1e-5)


def test_a_continued_run_is_continued_again(grown: Grown) -> None:
    more = grown.folder / "more.csv"
    more.write_text((grown.folder / "grown.csv").read_text() + "user00000,item9999\nuser00001,cold-1\n" * 2)
    again = run(grown.folder, "method=tslrec", f"data.path={more}", f"continue_from={grown.continued.folder}")
    assert again.key("sft") == grown.old.key("sft")
    assert again.inputs("fusion")["earlier"] == grown.continued.key("fusion")
    scaling = [load_file(each.stage("fusion") / "knowledge_scaling.safetensors") for each in (grown.continued, again)]
    assert torch.equal(scaling[0]["mean"], scaling[1]["mean"])
    assert again.results["tslrec"]["stages"]["augment"]["metrics"]["items_computed"] == 1
    assert tslrec.load(again.folder).recommend([["item9999"]], k=3).height == 3


def test_old_items_that_are_gone_vanish_unless_the_store_knows_them(grown: Grown) -> None:
    lines = (grown.folder / "grown.csv").read_text().splitlines()
    fewer = grown.folder / "fewer.csv"
    fewer.write_text("\n".join(line for line in lines if not line.endswith(("item0003", "item0008"))) + "\n")
    given = (f"data.path={fewer}", f"continue_from={grown.old.folder}")
    continued = run(grown.folder, "method=ci", "compare=[base]", *given)
    out = " ".join(continued.ended.out.split())
    assert f"Items: {OLD_ITEMS} before, {ITEMS} now; {ITEMS - OLD_ITEMS + 2} new, 2 gone" in out
    data = continued.data()
    assert "item0003" not in data.ids.items
    ended = train_here(*SETTINGS, "method=tslrec", *given, folder=grown.folder)
    assert "lacks 2 items of" in ended.refusal
    assert "item0003 for one" in ended.refusal or "item0008 for one" in ended.refusal


def test_with_new_users_alone_no_row_of_the_source_is_trained(grown: Grown) -> None:
    lines = (grown.folder / "old.csv").read_text().splitlines()
    users = grown.folder / "users.csv"
    again = [line.replace("user0000", "user9000") for line in lines if line.startswith("user0000")]
    users.write_text("\n".join([*lines, *again]) + "\n")
    continued = run(grown.folder, "method=tslrec", f"data.path={users}", f"continue_from={grown.old.folder}")
    metrics = continued.results["tslrec"]["stages"]["backbone"]["metrics"]
    assert metrics["epochs"] == 0
    assert "best_epoch" not in metrics
    assert metrics["validation/masked/NDCG@10"] >= 0
    assert continued.results["tslrec"]["stages"]["augment"]["metrics"]["items_computed"] == 0
    assert continued.results["tslrec"]["stages"]["fusion"]["metrics"]["epochs"] > 0


def digests(folder: Path) -> dict[str, str]:
    """The sha256 of the arrays and the logs of every result."""
    return {
        path.relative_to(folder).as_posix(): file_sha256(path)
        for path in sorted((folder / "artifacts").rglob("*"))
        if path.suffix in (".safetensors", ".csv")
    }


def test_a_continued_run_that_was_killed_ends_as_if_it_had_not(tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    write_market(whole)
    common = [*SETTINGS, "method=tslrec", "trainer.checkpoint_seconds=0", "training.batch_size=64"]
    ended = train(*common, "data.path=old.csv", folder=whole)
    assert ended.returncode == 0, ended.stderr
    (old,) = (whole / "artifacts" / "runs").iterdir()
    shutil.copytree(whole, killed)
    command = [*common, "data.path=grown.csv", f"continue_from=artifacts/runs/{old.name}"]
    train_until_killed(*command, folder=killed, at="backbone/*.checkpoints/step-*", step=3)
    train_until_killed(*command, folder=killed, at="augment/*", moment="before")
    train_until_killed(*command, folder=killed, at="fusion/*.checkpoints/step-*", step=4)
    for folder in (whole, killed):
        ended = train(*command, folder=folder)
        assert ended.returncode == 0, ended.stderr
    assert digests(killed) == digests(whole)
