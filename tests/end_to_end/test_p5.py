"""Whole runs of `method=p5`: its table and record, its recommender, what it refuses, and a run that was killed."""

from __future__ import annotations

from pathlib import Path

import pytest
from safetensors.numpy import load_file

from support.in_process import train_here
from support.runs import SMALL, result_of, train, train_until_killed
from tslrec import load
from tslrec.evaluation.protocols import LIST_MARK
from tslrec.serving.export import export
from tslrec.serving.run_folder import open_run
from tslrec.serving.verification import verify_ranks
from tslrec.system.errors import UserError

pytestmark = pytest.mark.slow

P5 = [
    "method=p5",
    *SMALL,
    "t5=laptop",
    *("t5.d_model=16", "t5.d_kv=8", "t5.d_ff=32", "t5.num_layers=1", "t5.num_decoder_layers=1", "t5.num_heads=2"),
    *("p5.prompts=1", "p5.share=0.2", "p5.max_epochs=2", "p5.max_history=5"),
    *("item_index.num_clusters=3", "item_index.leaf_size=8"),
]
"""Overrides of a run that takes some seconds."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one run of P5, beside which the plain backbone stands."""
    folder = tmp_path_factory.mktemp("runs")
    ended = train_here(*P5, "compare=[base]", folder=folder)
    assert ended.code == 0, ended.err
    assert "P5 †" in ended.out
    assert "list of 10 by beam search, no full ranking" in ended.out
    return folder


def test_its_record_says_that_it_is_no_full_ranking(runs: Path) -> None:
    rows = {row["method"]: row for row in result_of(runs)["results"]}
    assert rows["p5"]["ranking"] == LIST_MARK
    assert "ranking" not in rows["base"]
    assert list(rows["p5"]["stages"]) == ["item_index", "p5"]
    metrics = rows["p5"]["metrics"]
    assert metrics["test/list_length"] == 10
    assert metrics.keys() >= {"test/masked/HR@10", "unseen/unmasked/NDCG@10", "validation/masked/NDCG@10"}
    assert rows["p5"]["llm"] == "T5-laptop's sizes (1 + 1 layers of width 16), weights at random"


@pytest.mark.parametrize("kind", ["sequential", "random"])
def test_other_item_indexes_run_to_their_table(tmp_path: Path, kind: str) -> None:
    ended = train_here(*P5, f"item_index.kind={kind}", "p5.max_epochs=1", "examples=2", folder=tmp_path)
    assert ended.code == 0, ended.err
    assert "P5 †" in ended.out
    assert "Recommended by p5" in ended.out


def test_its_recommender_ranks_as_its_test_did_and_is_not_exported(runs: Path, tmp_path: Path) -> None:
    (folder,) = (runs / "artifacts" / "runs").iterdir()
    run, recommender = open_run(folder, "p5"), load(folder, method="p5")
    for each in verify_ranks(recommender.engine, run.interactions(), run.last[1], run.config.training.eval_batch_size):
        assert each.equal == each.users > 0
    ids = recommender.catalogue.raw_ids
    listed = recommender.recommend([[ids[1], ids[2]], [ids[3]]], k=10)
    assert listed["rank"].to_list() == [*range(1, 11)] * 2
    assert not {ids[1], ids[2]} & set(listed["item"][:10])
    alone = recommender.recommend([[ids[1]]], k=3, only=[ids[1], ids[4], ids[5]])
    assert sorted(alone["item"]) == sorted([ids[4], ids[5]])
    with pytest.raises(UserError, match=r"^k=11: p5 generates lists of 10 items"):
        recommender.recommend([[ids[1]]], k=11)
    with pytest.raises(UserError, match="no item vectors"):
        recommender.similar([ids[1]])
    with pytest.raises(UserError, match="runs its language model for every user"):
        export(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match=r"engine=hnsw: .* use engine=pytorch"):
        load(folder, method="p5", engine="hnsw")


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("p5.beams=9", "p5.beams=9"),
        ("p5.tasks=[straightforward]", "p5.tasks"),
        ("metrics=[HR@20]", "HR@20"),
        ("t5.whole_words=20", "t5.whole_words=20"),
        ("t5.relative_attention_max_distance=16", "t5.relative_attention_max_distance=16"),
        ("t5.path=nowhere", "nowhere"),
        ("p5.max_tokens=1", "p5.max_tokens=1"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path: Path, setting: str, named: str) -> None:
    refusal = train_here(*P5, setting, folder=tmp_path).refusal
    assert named in refusal
    assert len(refusal) <= 320
    assert not list((tmp_path / "artifacts").glob("p5/*/manifest.json"))


def test_a_killed_run_goes_on_to_the_same_bits(runs: Path, tmp_path: Path) -> None:
    command = [*P5, "trainer.checkpoint_seconds=0"]
    train_until_killed(*command, folder=tmp_path, at="p5/*.checkpoints/step-*", step=3)
    again = train(*command, folder=tmp_path)
    assert again.returncode == 0, again.stderr
    for name in ("weights.safetensors", "ranks.safetensors"):
        (one,), (other,) = ((folder / "artifacts").glob(f"p5/*/{name}") for folder in (runs, tmp_path))
        whole, resumed = load_file(one), load_file(other)
        assert whole.keys() == resumed.keys()
        assert all((whole[key] == resumed[key]).all() for key in whole)
