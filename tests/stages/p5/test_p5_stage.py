"""P5 as a stage: it learns, a killed training goes on, and its recommender lists what its test listed."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
from safetensors.numpy import load_file

from support.interactions import make_interactions
from support.unigram import trained_unigram
from tslrec.config import Config
from tslrec.data.interactions import TEST, Interactions
from tslrec.serving.engine import Batch
from tslrec.serving.list_engine import ListEngine
from tslrec.serving.run_histories import histories_of
from tslrec.serving.verification import verify_ranks
from tslrec.settings.choices import MethodConfig
from tslrec.settings.data import DataConfig
from tslrec.settings.language_models import EncoderDecoderConfig, LLMConfig
from tslrec.settings.rivals import ItemIndexConfig, P5Config
from tslrec.settings.trainer import TrainerConfig
from tslrec.stages.context import StageContext
from tslrec.stages.fusion_inputs import Sources
from tslrec.stages.item_index import stage as item_index
from tslrec.stages.item_index.codes import read_item_index
from tslrec.stages.p5 import stage as p5
from tslrec.stages.p5.vocabulary import number_tokens, t5_tokenizer
from tslrec.stages.restored import ListGenerator, restore
from tslrec.system.errors import UserError
from tslrec.system.meter import Meter
from tslrec.training.checkpoints import Checkpoints
from tslrec.training.trainer import StageTrainers

NUM_ITEMS, NUM_USERS = 30, 60
TINY: dict[str, Any] = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_decoder_layers": 1, "num_heads": 2}
NUMBERS: dict[str, Any] = {"batch_size": 16, "max_epochs": 2, "prompts": 1, "eval_batch_size": 7, "max_history": 5}
KINDS = ("collaborative", "sequential", "random")


def market() -> Interactions:
    """Users walk around all items, so that the last item tells the next one."""
    return make_interactions(
        [[1 + (7 * start + i) % NUM_ITEMS for i in range(4 + start % 6)] for start in range(NUM_USERS)], NUM_ITEMS
    )


def config_of(folder: Path, kind: str = "collaborative", t5: dict[str, Any] | None = None, **changes: Any) -> Config:
    return Config(
        method=MethodConfig("p5", ["item_index", "p5"]),
        data=DataConfig("market"),
        model={},
        fusion={},
        llm=LLMConfig(name="tiny", random={}),
        t5=EncoderDecoderConfig("tests", **{**TINY, **(t5 or {})}),
        item_index=ItemIndexConfig(kind, num_clusters=3, leaf_size=6),
        p5=P5Config(**{**NUMBERS, **changes}),
        trainer=TrainerConfig("cpu"),
        preset="tests",
        cache=str(folder),
    )


def run_stage(
    stage: Any, folder: Path, name: str, config: Config, inputs: dict[str, Path], *callbacks: lightning.Callback
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
        StageContext(config, market(), 3, output, inputs, make_trainer, checkpoints, meter)
    )
    return metrics


def train(folder: Path, name: str, config: Config, *callbacks: lightning.Callback) -> dict[str, Any]:
    """Runs both stages; the metrics of the second."""
    run_stage(item_index, folder, "item_index", config, {})
    return run_stage(p5, folder, name, config, inputs_of(folder), *callbacks)


def inputs_of(folder: Path) -> dict[str, Path]:
    """The folders of the results that P5 reads."""
    return {"item_index": folder / "item_index"}


def engine_of(folder: Path, name: str, config: Config) -> ListEngine:
    restored = restore("p5", Sources(config, market(), inputs_of(folder)), folder / name)
    assert isinstance(restored, ListGenerator)
    return ListEngine(restored)


class KilledError(Exception):
    pass


class Kill(lightning.Callback):
    """Ends a training before a step as SIGKILL would."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            raise KilledError


@pytest.mark.slow
def test_it_learns_what_follows_what(tmp_path: Path) -> None:
    numbers: dict[str, Any] = {
        "max_history": 2,
        "tasks": ["sequential"],
        "prompts": 4,
        "max_epochs": 8,
        "learning_rate": 1e-2,
    }
    config = config_of(tmp_path, t5={"d_model": 32, "num_heads": 4, "dropout": 0.0}, **numbers)
    config.training.validation_users = 10
    metrics = train(tmp_path, "p5", config)
    assert (metrics["validation/users"], metrics["test/users"], metrics["epochs"]) == (10, NUM_USERS, 8)
    # By chance, a fifth of the lists' first halves would hold their target.
    assert metrics["test/masked/HR@5"] > 0.6
    assert metrics["test/unmasked/HR@5"] > 0.6
    assert metrics["unseen/masked/HR@5"] > 0.45


@pytest.mark.parametrize("step", [3, 11])
def test_a_killed_training_goes_on_to_the_same_weights(tmp_path: Path, step: int) -> None:
    # Eight steps an epoch.
    config = config_of(tmp_path, batch_size=64, eval_batch_size=60)
    config.trainer.checkpoint_seconds = 0
    whole = train(tmp_path, "whole", config)
    with pytest.raises(KilledError):
        train(tmp_path, "killed", config, Kill(step))
    assert train(tmp_path, "killed", config) == whole
    for name in ("weights.safetensors", "ranks.safetensors"):
        one, other = load_file(tmp_path / "whole" / name), load_file(tmp_path / "killed" / name)
        assert one.keys() == other.keys()
        assert all(np.array_equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize("kind", KINDS)
def test_the_recommender_lists_what_the_test_listed(tmp_path: Path, kind: str) -> None:
    config = config_of(tmp_path, kind, max_epochs=1, beams=12)
    metrics = train(tmp_path, "p5", config)
    assert {path.name for path in (tmp_path / "p5").iterdir()} == {"weights.safetensors", "ranks.safetensors", "log"}
    assert metrics["test/list_length"] == 10
    ranks = load_file(tmp_path / "p5" / "ranks.safetensors")
    engine = engine_of(tmp_path, "p5", config)
    for each in verify_ranks(engine, market(), tmp_path / "p5", batch_size=14):
        assert each.equal == each.users == NUM_USERS
        assert metrics[f"test/{each.protocol}/HR@10"] == pytest.approx((ranks[each.protocol] <= 10).mean())
        assert set(ranks[each.protocol].tolist()) <= {*range(1, 11), np.inf}
    histories = histories_of(market(), np.arange(NUM_USERS), leave_out=TEST)
    for users, batch in histories.batches(engine.max_len, 512, filter_seen=True):
        listed, scores = engine.best_items(batch, 10, None)
        for row, user in enumerate(users.tolist()):
            had = set(market().sequence(user)[:-1].tolist())
            # Of thirty items some are left for everybody: no place is empty, and no item stands twice.
            assert len(set(listed[row].tolist()) - had - {0}) == 10
        assert (np.diff(scores, axis=1) <= 0).all()


def test_lists_of_few_candidates_have_empty_places(tmp_path: Path) -> None:
    config = config_of(tmp_path, max_epochs=1)
    train(tmp_path, "p5", config)
    engine = engine_of(tmp_path, "p5", config)
    batch = Batch(*(np.array(each) for each in ([[3, 4, 0], [9, 8, 7]], [2, 3], [0, 0, 1, 1, 1], [3, 4, 9, 8, 7])))
    few, scores = engine.best_items(batch, 12, np.array([4, 5, 6, 7]))
    assert [sorted(row) for row in few.tolist()] == [[0] * 9 + [5, 6, 7], [0] * 9 + [4, 5, 6]]
    assert (few[:, 3:] == 0).all()
    assert np.isneginf(scores[:, 3:]).all()
    # A user of the training is asked by name.
    known, _ = engine.best_items(batch._replace(users_B=np.array([0, 1])), 10, None)
    new, _ = engine.best_items(batch, 10, None)
    assert known.shape == new.shape == (2, 10)
    for refused in (engine.user_vectors, lambda given: engine.scores(given, np.array([1]))):
        with pytest.raises(UserError, match="ask for recommendations"):
            refused(batch)
    with pytest.raises(UserError, match="no item vectors"):
        engine.item_vectors()


@pytest.mark.parametrize("changes", [{}, {"max_tokens": 20}, {"max_history": 40}])
def test_a_table_of_too_few_whole_words_is_refused_and_the_least_one_holds(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    config = config_of(tmp_path, t5={"whole_words": 2}, max_epochs=1, **changes)
    with pytest.raises(UserError, match=r"^t5\.whole_words=2: inputs of P5 have up to \d+ words here") as refused:
        train(tmp_path, "p5", config)
    assert len(str(refused.value)) <= 300
    most = int(str(refused.value).split("up to ")[1].split()[0])
    config.t5 = replace(config.t5, whole_words=most)
    with pytest.raises(UserError, match=r"^t5\.whole_words="):
        train(tmp_path, "p5", config)
    config.t5 = replace(config.t5, whole_words=most + 1)
    train(tmp_path, "p5", config)
    engine = engine_of(tmp_path, "p5", config)
    longest = np.full((1, engine.max_len), NUM_ITEMS)
    found, _ = engine.best_items(Batch(longest, np.array([engine.max_len]), *[np.zeros(0, np.int64)] * 2), 10, None)
    assert (found > 0).all()


@pytest.mark.parametrize("kind", ["collaborative", "sequential"])
def test_it_begins_with_the_weights_of_a_t5(tmp_path: Path, kind: str) -> None:
    from transformers import AutoTokenizer, T5Config, T5ForConditionalGeneration

    folder = trained_unigram(tmp_path / "t5")
    their_tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    known = len(their_tokenizer)
    T5ForConditionalGeneration(T5Config(**{"vocab_size": known + 5, **TINY})).save_pretrained(folder)
    theirs = load_file(folder / "model.safetensors")["shared.weight"]
    config = config_of(tmp_path, kind, t5={"path": str(folder)}, max_epochs=1, learning_rate=1e-30, weight_decay=0.0)
    metrics = train(tmp_path, "p5", config)
    tokens_VD = load_file(tmp_path / "p5" / "weights.safetensors")["tokens.weight"]
    index = read_item_index(tmp_path / "item_index")
    assert metrics["vocabulary"] == len(tokens_VD) == known + len(index.new_tokens)
    tokenizer: Any = t5_tokenizer(folder, index.new_tokens)
    drawn = (tokens_VD[:known] != theirs[:known]).any(axis=1)
    assert np.flatnonzero(drawn).tolist() == number_tokens(tokenizer).tolist()
    for each in verify_ranks(engine_of(tmp_path, "p5", config), market(), tmp_path / "p5", batch_size=14):
        assert each.equal == each.users == NUM_USERS


def test_the_weights_of_the_best_epoch_are_tested(tmp_path: Path) -> None:
    config = config_of(tmp_path, learning_rate=5e-2, max_epochs=3)
    config.training.selection = "unmasked"
    metrics = train(tmp_path, "p5", config)
    log = [line.split(",") for line in (tmp_path / "p5" / "log" / "metrics.csv").read_text().splitlines()]
    column = log[0].index("validation/unmasked/NDCG@10")
    validated = [float(row[column]) for row in log[1:] if row[column]]
    assert len(validated) == 3
    assert metrics["best_epoch"] == int(np.argmax(validated))
    assert metrics["validation/unmasked/NDCG@10"] == pytest.approx(max(validated))


def test_metrics_of_lists_look_at_the_lists(tmp_path: Path) -> None:
    config = config_of(tmp_path, max_epochs=1)
    config.metrics = ["HR@5", "Coverage@8"]
    metrics = train(tmp_path, "p5", config)
    engine = engine_of(tmp_path, "p5", config)
    histories = histories_of(market(), np.arange(NUM_USERS), leave_out=TEST)
    for protocol, masked in (("masked", True), ("unmasked", False)):
        found = [engine.best_items(batch, 8, None)[0] for _, batch in histories.batches(5, 14, filter_seen=masked)]
        listed = np.unique(np.concatenate(found))
        assert metrics[f"test/{protocol}/Coverage@8"] == pytest.approx(len(listed[listed > 0]) / NUM_ITEMS)
