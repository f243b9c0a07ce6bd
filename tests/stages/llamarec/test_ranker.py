"""LlamaRec's ranker as a stage: what it ranks, that a killed training goes on, and the recommender that it makes."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
from safetensors.numpy import load_file

from support.interactions import make_interactions
from tslrec.config import Config
from tslrec.data.interactions import TEST, Interactions
from tslrec.data.item_titles import write_own_titles
from tslrec.serving.engine import Batch
from tslrec.serving.run_histories import histories_of
from tslrec.serving.torch_engine import TorchEngine
from tslrec.serving.verification import verify_ranks
from tslrec.settings.choices import MethodConfig
from tslrec.settings.data import DataConfig
from tslrec.settings.language_models import LLMConfig, LoraConfig
from tslrec.settings.rivals import LlamaRecConfig
from tslrec.settings.trainer import TrainerConfig
from tslrec.settings.training import TrainingConfig
from tslrec.stages import backbone as backbone_stage
from tslrec.stages.context import StageContext
from tslrec.stages.fusion_inputs import Sources
from tslrec.stages.llamarec import stage as ranker
from tslrec.stages.restored import Restored, restore
from tslrec.system.errors import UserError
from tslrec.system.meter import Meter
from tslrec.training.checkpoints import Checkpoints
from tslrec.training.trainer import StageTrainers

NUM_ITEMS = 30
SASREC = {"name": "sasrec", "_target_": "tslrec.models.backbones.sasrec.SASRec", "hidden_size": 8}
NUMBERS: dict[str, Any] = {
    "candidates": 6,
    "history": 4,
    "title_tokens": 8,
    "batch_size": 16,
    "steps_per_epoch": 3,
    "warmup_steps": 2,
    "learning_rate": 5e-3,
    "eval_batch_size": 7,
}


def market(num_users: int = 40) -> Interactions:
    """Users walk around all items, so that the last item tells the next one; some end elsewhere."""
    draw = np.random.default_rng(0)
    walks = [[1 + (7 * start + i) % NUM_ITEMS for i in range(4 + start % 5)] for start in range(num_users)]
    for walk in walks[::3]:
        walk[-2:] = draw.integers(1, NUM_ITEMS + 1, size=2).tolist()
    return make_interactions(walks, NUM_ITEMS)


def config_of(folder: Path, **changes: Any) -> Config:
    return Config(
        method=MethodConfig("llamarec", ["backbone", "ranker"]),
        data=DataConfig("market"),
        model=SASREC,
        fusion={},
        llm=LLMConfig(name="tiny", random={}),
        training=TrainingConfig(max_len=5, max_epochs=3, batch_size=32, learning_rate=1e-2),
        llamarec=LlamaRecConfig(**{**NUMBERS, **changes}),
        trainer=TrainerConfig("cpu", checkpoint_seconds=0),
        preset="tests",
        cache=str(folder),
    )


def run_stage(
    stage: Any,
    folder: Path,
    name: str,
    config: Config,
    inputs: dict[str, Path],
    *callbacks: lightning.Callback,
    interactions: Interactions | None = None,
) -> dict[str, Any]:
    lightning.seed_everything(3, verbose=False)
    output = folder / name
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    checkpoints = Checkpoints(folder / f"{name}.checkpoints")
    meter = Meter()
    trainers = StageTrainers(config.trainer, name, output, checkpoints=checkpoints, meter=meter)

    def make_trainer(**settings: Any) -> lightning.Trainer:
        return trainers(**{**settings, "callbacks": [*settings["callbacks"], *callbacks]})

    metrics: dict[str, Any] = stage.run(
        StageContext(config, interactions or market(), 3, output, inputs, make_trainer, checkpoints, meter)
    )
    return metrics


def inputs_of(retriever: Path, interactions: Interactions | None = None) -> dict[str, Path]:
    """The folders of the results that the ranker reads; every fourth item has no title."""
    raw_ids = (interactions or market()).ids.items
    folder = retriever.parent / "titles"
    folder.mkdir(exist_ok=True)
    own = ["", *(f"Thing {item}" if item % 4 else " " for item in range(1, len(raw_ids)))]
    write_own_titles(own, raw_ids, folder)
    return {"backbone": retriever, "titles": folder}


@pytest.fixture(scope="module")
def retriever(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained backbone's folder."""
    folder = tmp_path_factory.mktemp("retriever")
    run_stage(backbone_stage, folder, "backbone", config_of(folder), {})
    return folder / "backbone"


def rank(retriever: Path, folder: Path, name: str, *callbacks: lightning.Callback, **changes: Any) -> dict[str, Any]:
    return run_stage(ranker, folder, name, config_of(folder, **changes), inputs_of(retriever), *callbacks)


def test_a_step_in_several_passes_is_the_same_step(retriever: Path, tmp_path: Path) -> None:
    plain = LoraConfig(4, 8, 0.0, ["q_proj", "v_proj"])
    found = []
    for name, tokens in (("whole", 10**6), ("passes", 1)):
        rank(retriever, tmp_path, name, lora=plain, tokens_at_once=tokens)
        found.append(load_file(tmp_path / name / "adapter" / "adapter_model.safetensors"))
    whole, passes = found
    assert whole.keys() == passes.keys()
    for name, weights in whole.items():
        assert np.allclose(weights, passes[name], atol=1e-4), name


def test_targets_that_were_not_retrieved_keep_their_rank(retriever: Path, tmp_path: Path) -> None:
    metrics = rank(retriever, tmp_path, "ranker")
    written = {"adapter", "heads.safetensors", "ranks.safetensors", "log"}
    assert {path.name for path in (tmp_path / "ranker").iterdir()} == written
    ranks, before = (load_file(folder / "ranks.safetensors") for folder in (tmp_path / "ranker", retriever))
    assert ranks["users"].tolist() == before["users"].tolist() == list(range(40))
    for protocol in ("masked", "unmasked"):
        retrieved = before[protocol] <= NUMBERS["candidates"]
        assert 0 < retrieved.sum() < 40
        assert metrics[f"retrieved/{protocol}"] == retrieved.mean()
        assert np.array_equal(ranks[protocol][~retrieved], before[protocol][~retrieved])
        assert set(ranks[protocol][retrieved]) <= set(range(1, NUMBERS["candidates"] + 1))
        assert metrics[f"test/{protocol}/HR@5"] == pytest.approx((ranks[protocol] <= 5).mean())
    in_either = np.logical_or(*(before[protocol] <= NUMBERS["candidates"] for protocol in ("masked", "unmasked")))
    assert metrics["reranked_users"] == in_either.sum()
    assert metrics["test/users"] == metrics["validation/users"] == 40
    assert metrics["instances"] == (market().train_lengths - 1).sum()
    assert metrics["missing_titles"] == NUM_ITEMS // 4


def test_a_killed_training_goes_on_to_the_same_weights(retriever: Path, tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    class Kill(lightning.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if trainer.global_step == 11:
                raise KilledError

    whole = rank(retriever, tmp_path, "whole", max_epochs=2)
    with pytest.raises(KilledError):
        rank(retriever, tmp_path, "killed", Kill(), max_epochs=2)
    assert rank(retriever, tmp_path, "killed", max_epochs=2) == whole
    for name in ("adapter/adapter_model.safetensors", "ranks.safetensors"):
        one, other = load_file(tmp_path / "whole" / name), load_file(tmp_path / "killed" / name)
        assert all(np.array_equal(one[key], other[key]) for key in one)


def test_the_recommender_reranks_as_the_test_did(retriever: Path, tmp_path: Path) -> None:
    rank(retriever, tmp_path, "ranker")
    config, interactions = config_of(tmp_path), market()
    restored = restore("ranker", Sources(config, interactions, inputs_of(retriever)), tmp_path / "ranker")
    assert isinstance(restored, Restored)
    assert restored.backbone is None
    assert restored.max_len == 5
    engine = TorchEngine(restored)
    for each in verify_ranks(engine, interactions, tmp_path / "ranker", config.training.eval_batch_size):
        assert each.equal == each.users == 40
    batch = Batch(*(np.array(each) for each in ([[3, 4, 0], [9, 8, 7]], [2, 3], [0, 0, 1, 1, 1], [3, 4, 9, 8, 7])))
    found, _ = engine.best_items(batch, 10, None)
    by_score, _ = engine.highest(batch, 10, None)
    assert found[:, 6:].tolist() == by_score[:, 6:].tolist()
    assert [sorted(row[:6]) for row in found.tolist()] == [sorted(row[:6]) for row in by_score.tolist()]
    assert found[:, :3].tolist() == engine.best_items(batch, 3, None)[0].tolist()
    # Of four candidates alone, two places stay empty.
    few, scores = engine.best_items(batch, 6, np.array([4, 5, 6, 7]))
    assert [sorted(row) for row in few.tolist()] == [[0, 0, 0, 5, 6, 7], [0, 0, 0, 4, 5, 6]]
    assert few[:, 3:].tolist() == [[0, 0, 0]] * 2
    assert np.isneginf(scores[:, 3:]).all()


def test_metrics_of_lists_look_at_reranked_lists(retriever: Path, tmp_path: Path) -> None:
    config = config_of(tmp_path)
    config.metrics = ["HR@5", "Coverage@8", "Popularity@3"]
    metrics = run_stage(ranker, tmp_path, "ranker", config, inputs_of(retriever))
    restored = restore("ranker", Sources(config, market(), inputs_of(retriever)), tmp_path / "ranker")
    assert isinstance(restored, Restored)
    engine = TorchEngine(restored)
    histories = histories_of(market(), np.arange(40), leave_out=TEST)
    listed = np.zeros((40, 8), dtype=np.int64)
    for users, batch in histories.batches(engine.max_len, 512, filter_seen=True):
        listed[users] = engine.best_items(batch, 8, None)[0]
    assert metrics["test/masked/Coverage@8"] == len(np.unique(listed[listed > 0])) / NUM_ITEMS
    counts = market().training_counts
    assert metrics["test/masked/Popularity@3"] == pytest.approx(counts[listed[:, :3]].mean())


def test_a_catalogue_smaller_than_the_candidates_is_ranked_whole(tmp_path: Path) -> None:
    config = config_of(tmp_path, candidates=26, max_epochs=1)
    small = make_interactions([[1 + (start + i) % 9 for i in range(4 + start % 3)] for start in range(12)], 9)
    run_stage(backbone_stage, tmp_path, "backbone", config, {}, interactions=small)
    metrics = run_stage(ranker, tmp_path, "ranker", config, inputs_of(tmp_path / "backbone", small), interactions=small)
    assert metrics["retrieved/unmasked"] == 1
    ranks = load_file(tmp_path / "ranker" / "ranks.safetensors")
    assert ranks["unmasked"].max() <= 9


def test_without_a_shared_prefix_the_ranks_are_the_same(retriever: Path, tmp_path: Path) -> None:
    found = []
    for shared in (True, False):
        config = config_of(tmp_path, lora=LoraConfig(8, 32, 0.0, ["q_proj", "v_proj"]))
        config.llm.shared_prefix = shared
        run_stage(ranker, tmp_path, f"shared-{shared}", config, inputs_of(retriever))
        found.append(load_file(tmp_path / f"shared-{shared}" / "ranks.safetensors"))
    for protocol in ("masked", "unmasked"):
        assert (found[0][protocol] == found[1][protocol]).mean() > 0.9


def test_too_short_histories_are_refused(tmp_path: Path, retriever: Path) -> None:
    short = make_interactions([[1, 2, 3], [4, 5, 6]], NUM_ITEMS)
    with pytest.raises(UserError, match="no user has two training items"):
        run_stage(ranker, tmp_path, "ranker", config_of(tmp_path), inputs_of(retriever), interactions=short)
