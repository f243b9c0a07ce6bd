"""Whole runs of `method=p5_llm`: its table, its recommender, what it refuses, and a run that was killed."""

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
    "method=p5_llm",
    *SMALL,
    *("p5.prompts=1", "p5.share=0.1", "p5.max_history=3", "p5.tasks=[sequential]", "p5.batch_size=16"),
    *("item_index.num_clusters=3", "item_index.leaf_size=8"),
]
"""Overrides of a run that takes some seconds: a text of the byte tokenizer is long."""

WRITTEN = ("adapter/adapter_model.safetensors", "heads.safetensors", "ranks.safetensors")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one run."""
    folder = tmp_path_factory.mktemp("runs")
    ended = train_here(*P5, folder=folder)
    assert ended.code == 0, ended.err
    assert "P5 (LLM) †" in ended.out
    assert "list of 10 by beam search, no full ranking" in ended.out
    return folder


def test_its_record_says_what_it_ran(runs: Path) -> None:
    (row,) = result_of(runs)["results"]
    assert row["ranking"] == LIST_MARK
    assert list(row["stages"]) == ["item_index", "p5_llm"]
    assert row["metrics"].keys() >= {"test/masked/HR@10", "unseen/unmasked/NDCG@10", "validation/masked/NDCG@10"}
    assert row["metrics"]["epochs"] == 2
    assert row["llm"] == "tiny (random weights)"


def test_its_recommender_ranks_as_its_test_did_and_is_not_exported(runs: Path, tmp_path: Path) -> None:
    (folder,) = (runs / "artifacts" / "runs").iterdir()
    run, recommender = open_run(folder, "p5_llm"), load(folder, method="p5_llm")
    for each in verify_ranks(recommender.engine, run.interactions(), run.last[1], run.config.training.eval_batch_size):
        assert each.equal == each.users > 0
    ids = recommender.catalogue.raw_ids
    listed = recommender.recommend([[ids[1], ids[2]], [ids[3]]], k=10)
    assert listed["rank"].to_list() == [*range(1, 11)] * 2
    assert not {ids[1], ids[2]} & set(listed["item"][:10])
    with pytest.raises(UserError, match=r"^k=11: p5_llm generates lists of 10 items"):
        recommender.recommend([[ids[1]]], k=11)
    with pytest.raises(UserError, match="runs its language model for every user"):
        export(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("p5.beams=9", "p5.beams=9"),
        ("p5.lora.targets=[qproj]", "nearest: q_proj"),
        ("p5.lora.targets=[]", "p5.lora.targets"),
        ("p5.lora.rank=0", "p5.lora.rank=0"),
        ("p5.tokens_at_once=0", "p5.tokens_at_once=0"),
        ("p5.max_tokens=3", "p5.max_tokens=3"),
        ("metrics=[HR@20]", "HR@20"),
    ],
)
def test_settings_that_cannot_work_are_refused(tmp_path: Path, setting: str, named: str) -> None:
    refusal = train_here(*P5, setting, folder=tmp_path).refusal
    assert named in refusal
    assert len(refusal) <= 320
    assert not list((tmp_path / "artifacts").glob("p5_llm/*/manifest.json"))


def test_a_killed_run_goes_on_to_the_same_bits(runs: Path, tmp_path: Path) -> None:
    command = [*P5, "trainer.checkpoint_seconds=0"]
    train_until_killed(*command, folder=tmp_path, at="p5_llm/*.checkpoints/step-*", step=2)
    again = train(*command, folder=tmp_path)
    assert again.returncode == 0, again.stderr
    for name in WRITTEN:
        (one,), (other,) = ((folder / "artifacts").glob(f"p5_llm/*/{name}") for folder in (runs, tmp_path))
        whole, resumed = load_file(one), load_file(other)
        assert whole.keys() == resumed.keys()
        assert all((whole[key] == resumed[key]).all() for key in whole)
