"""POD as a stage: that it learns, what it validates by, how it stops, and that a killed training goes on."""

from __future__ import annotations

import csv
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from support.interactions import make_interactions
from support.padding import padded
from tslrec.config import Config
from tslrec.data.interactions import Interactions
from tslrec.evaluation.generated_lists import list_ranks
from tslrec.llm.encoder_decoder.building import build
from tslrec.llm.encoder_decoder.model import EncoderDecoder
from tslrec.settings.choices import MethodConfig
from tslrec.settings.data import DataConfig
from tslrec.settings.language_models import EncoderDecoderConfig
from tslrec.settings.rivals import PODConfig
from tslrec.settings.trainer import TrainerConfig
from tslrec.settings.training import TrainingConfig
from tslrec.stages.context import StageContext
from tslrec.stages.fusion_inputs import Sources
from tslrec.stages.pod import stage as pod
from tslrec.stages.pod.data import PODDataModule, numbering_of
from tslrec.stages.pod.packed import PackedDataModule
from tslrec.stages.pod.pieces import PromptWriter
from tslrec.stages.pod.restored import restore
from tslrec.stages.pod.rotation import Turn
from tslrec.stages.pod.stage import packer_of
from tslrec.stages.pod.templates import NUM_TASKS, SEQUENTIAL, TOP_N
from tslrec.stages.pod.vocabulary import vocabulary_of
from tslrec.system.errors import UserError
from tslrec.system.meter import Meter
from tslrec.training.checkpoints import Checkpoints
from tslrec.training.trainer import StageTrainers

NUM_ITEMS = 60
T5 = EncoderDecoderConfig(d_model=32, d_kv=16, d_ff=64, num_layers=1, num_decoder_layers=1, num_heads=2, dropout=0.0)
NUMBERS = PODConfig(
    batch_size=16, candidates=6, history=4, eval_batch_size=9, learning_rate=3e-3, max_epochs=3, num_beams=12
)


def market(num_users: int = 40) -> Interactions:
    """Users walk around all items, so that the last item tells the next one."""
    walks = [[1 + (7 * start + i) % NUM_ITEMS for i in range(5 + start % 5)] for start in range(num_users)]
    return make_interactions(walks, NUM_ITEMS)


def config_of(numbers: PODConfig = NUMBERS, t5: EncoderDecoderConfig = T5) -> Config:
    return Config(
        method=MethodConfig("pod", ["pod"]),
        data=DataConfig("market"),
        model={"name": "sasrec"},
        fusion={},
        training=TrainingConfig(),
        pod=numbers,
        t5=t5,
        trainer=TrainerConfig("cpu", checkpoint_seconds=0),
        preset="tests",
    )


def run_stage(
    folder: Path,
    name: str,
    config: Config,
    *callbacks: lightning.Callback,
    interactions: Interactions | None = None,
) -> dict[str, Any]:
    lightning.seed_everything(3, verbose=False)
    output = folder / name
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir()
    checkpoints, meter = Checkpoints(folder / f"{name}.checkpoints"), Meter()
    trainers = StageTrainers(config.trainer, name, output, checkpoints=checkpoints, meter=meter)

    def make_trainer(**settings: Any) -> lightning.Trainer:
        return trainers(**{**settings, "callbacks": [*settings["callbacks"], *callbacks]})

    context = StageContext(config, interactions or market(), 3, output, {}, make_trainer, checkpoints, meter)
    return pod.run(context)


def same_files(one: Path, other: Path) -> bool:
    """Whether two results hold the same bits."""
    names = ("weights.safetensors", "ranks.safetensors", "numbering.safetensors")
    logs = [(folder / "log" / "metrics.csv").read_text() for folder in (one, other)]
    pairs = [(load_file(one / name), load_file(other / name)) for name in names]
    arrays = all(np.array_equal(a[key], b[key]) for a, b in pairs for key in a.keys() | b.keys())
    return arrays and logs[0] == logs[1]


class KilledError(Exception):
    """Stands for the end of a process."""


class Kill(lightning.Callback):
    """Ends the training before a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == self.step:
            raise KilledError


def validation_losses(folder: Path) -> list[float]:
    """The losses of all validations, from the log."""
    with (folder / "log" / "metrics.csv").open() as file:
        return [float(row["validation/loss"]) for row in csv.DictReader(file) if row.get("validation/loss")]


def expected_epochs(losses: list[float], patience: int, *, in_a_row: bool) -> int:
    """How many epochs a rule of stopping runs of those that are listed."""
    best, worse = np.inf, 0
    for epoch, loss in enumerate(losses, start=1):
        if loss < best:
            best, worse = loss, 0 if in_a_row else worse
        else:
            worse += 1
        if worse == patience:
            return epoch
    return len(losses)


@pytest.mark.slow
@pytest.mark.parametrize("released", [False, True])
def test_a_killed_training_goes_on_to_the_same_bits_and_the_same_end(tmp_path: Path, *, released: bool) -> None:
    # At so high a rate some validations are worse than earlier ones.
    numbers = replace(NUMBERS, released=released, learning_rate=0.3, max_epochs=14, patience=14, steps_per_epoch=4)
    t5 = replace(T5, dropout=0.1)
    run_stage(tmp_path, "long", config_of(numbers, t5))
    config = config_of(replace(numbers, patience=2), t5)
    whole = run_stage(tmp_path, "whole", config)
    losses = validation_losses(tmp_path / "long")
    assert whole["epochs"] == expected_epochs(losses, 2, in_a_row=not released)
    assert validation_losses(tmp_path / "whole") == losses[: whole["epochs"]]
    assert whole["best_epoch"] == int(np.argmin(losses[: whole["epochs"]]))
    for step in (2, 11, 4 * whole["epochs"] - 2):
        with pytest.raises(KilledError):
            run_stage(tmp_path, "killed", config, Kill(step))
    assert run_stage(tmp_path, "killed", config) == whole
    assert same_files(tmp_path / "whole", tmp_path / "killed")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """A clean result's folder and its metrics."""
    folder = tmp_path_factory.mktemp("trained")
    return folder / "pod", run_stage(folder, "pod", config_of())


def test_it_writes_what_it_says(trained: tuple[Path, dict[str, Any]]) -> None:
    folder, metrics = trained
    written = {"weights.safetensors", "numbering.safetensors", "ranks.safetensors", "log"}
    assert {path.name for path in folder.iterdir()} == written
    ranks = load_file(folder / "ranks.safetensors")
    assert ranks["users"].tolist() == list(range(40))
    for protocol in ("masked", "unmasked"):
        assert set(ranks[protocol].tolist()) <= {*range(1, 11), np.inf}
        assert metrics[f"test/{protocol}/HR@10"] == pytest.approx((ranks[protocol] <= 10).mean())
    tasks = [metrics[f"validation/{name}_loss"] for name in ("sequential", "top_n")]
    assert metrics["validation/loss"] == pytest.approx(sum(tasks) / 2)
    assert (metrics["validation/users"], metrics["test/users"], metrics["test/list_length"]) == (40, 40, 10)


@pytest.mark.slow
def test_the_clean_loss_does_not_depend_on_the_batches_and_the_released_one_does(tmp_path: Path) -> None:
    def losses(size: int, *, released: bool) -> list[float]:
        numbers = replace(NUMBERS, eval_batch_size=size, released=released, max_epochs=1)
        metrics = run_stage(tmp_path, f"{size}-{released}", config_of(numbers))
        return [metrics[f"validation/{name}"] for name in ("loss", "sequential_loss", "top_n_loss")]

    assert losses(7, released=False) == pytest.approx(losses(40, released=False), rel=1e-5)
    assert losses(7, released=True) != pytest.approx(losses(40, released=True), rel=1e-5)


def test_its_recommender_lists_what_the_test_listed(trained: tuple[Path, dict[str, Any]]) -> None:
    folder, _ = trained
    interactions = market()
    restored = restore(Sources(config_of(), interactions, {}), folder)
    assert (restored.length, restored.num_items, restored.max_len) == (10, NUM_ITEMS, NUMBERS.history)
    histories = [interactions.sequence(user)[:-1] for user in range(40)]
    shown = [history[-NUMBERS.history :] for history in histories]
    lengths = torch.tensor([len(each) for each in shown])
    items = padded(shown)
    rows = torch.from_numpy(np.repeat(np.arange(40), [len(each) for each in histories]))
    seen, none = torch.from_numpy(np.concatenate(histories).astype(np.int64)), torch.zeros(0, dtype=torch.int64)
    users = torch.arange(40)
    masked, scores = restored.lists(items, lengths, rows, seen, users)
    unmasked, _ = restored.lists(items, lengths, none, none, users)
    ranks, targets = load_file(folder / "ranks.safetensors"), interactions.items[interactions.offsets[1:] - 1]
    for protocol, found in (("masked", masked), ("unmasked", unmasked)):
        assert np.array_equal(list_ranks(found.numpy(), targets.astype(np.int64)), ranks[protocol])
        assert all(len(set(row)) == 10 and 0 not in row for row in found.tolist())
    assert not any(set(row) & set(history.tolist()) for row, history in zip(masked.tolist(), histories, strict=True))
    assert (scores.diff(dim=1) <= 0).all()
    strangers, _ = restored.lists(items, lengths, rows, seen, None)
    assert strangers.shape == (40, 10)


def test_the_released_form_recommends_nothing(tmp_path: Path) -> None:
    config = config_of(replace(NUMBERS, released=True))
    with pytest.raises(UserError, match="depend on which users share a batch"):
        restore(Sources(config, market(), {}), tmp_path)


@torch.no_grad()
def test_two_processes_together_have_the_loss_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    data, model = packed_data(NUMBERS)
    loss = float(model(data.collate(Turn(SEQUENTIAL, 0, np.arange(15))).batch))
    parts = []
    for rank in range(2):
        monkeypatch.setattr("tslrec.data.batching.rank_and_world_size", lambda rank=rank: (rank, 2))
        parts.append(data.collate(Turn(SEQUENTIAL, 0, np.arange(15))))
    assert sum(part.share for part in parts) == pytest.approx(1)
    assert sum(float(model(part.batch)) * part.share for part in parts) == pytest.approx(loss, rel=1e-5)
    alone = data.collate(Turn(TOP_N, 1, np.arange(1)))
    assert (alone.share, alone.weight, alone.samples) == (0, 0, 1)


def packed_data(numbers: PODConfig) -> tuple[PackedDataModule, EncoderDecoder]:
    """Packed batches of the market, and a model that reads them, in evaluation."""
    torch.manual_seed(0)
    vocabulary = vocabulary_of(T5)
    writer = PromptWriter(vocabulary.tokenizer, numbering_of(market(), numbers, 1))
    prompts = PODDataModule(market(), writer, numbers, 1)
    model = build(T5, len(vocabulary), num_prompts=NUM_TASKS * numbers.prompt_vectors).eval()
    return PackedDataModule(prompts, packer_of(numbers), lambda histories: None), model


def test_a_process_without_users_of_its_own_lists_none() -> None:
    data, _ = packed_data(NUMBERS)
    assert data.packed_users(None) is None


@pytest.mark.slow
def test_it_learns_what_follows_what(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    starts, lengths = draw.integers(0, 40, 400).tolist(), draw.integers(4, 12, 400).tolist()
    walks = [[1 + (start + i) % 40 for i in range(length)] for start, length in zip(starts, lengths, strict=True)]
    numbers = replace(
        NUMBERS, learning_rate=2e-3, max_epochs=10, patience=10, steps_per_epoch=100, batch_size=64, eval_batch_size=64
    )
    config = config_of(numbers, replace(T5, d_model=64))
    config.trainer.checkpoint_seconds = 300
    metrics = run_stage(tmp_path, "pod", config, interactions=make_interactions(walks, 40))
    # By chance a list of ten of forty items holds the target of a quarter of the users.
    assert metrics["test/masked/HR@10"] > 0.7
    assert metrics["test/unmasked/HR@10"] > 0.7
    assert metrics["validation/sequential_loss"] < metrics["validation/top_n_loss"]
