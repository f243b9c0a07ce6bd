"""Trainings and evaluations that must give the same with two processes as with one: `python ddp_scenarios.py FOLDER`.

`test_several_processes.py` starts this script as the two processes of a job, and runs the same functions in its own
process.
"""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import lightning
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from support.interactions import make_interactions
from support.sft_market import sft_context
from tslrec.data.datamodule import SequenceDataModule
from tslrec.data.interactions import Interactions
from tslrec.data.masking import Masking
from tslrec.data.sequence_batch import SequenceBatch
from tslrec.models.backbones.caser import Caser
from tslrec.models.backbones.fmlp import FMLPRec
from tslrec.models.backbones.sasrec import SASRec
from tslrec.models.fusions.gate import GatedFusion
from tslrec.models.item_embedding import IdEmbedding, ItemEmbedding
from tslrec.settings.trainer import TrainerConfig
from tslrec.stages.sft import stage as sft
from tslrec.system.errors import StoppedError, UserError
from tslrec.system.exits import run_program
from tslrec.system.meter import Meter
from tslrec.training.best_weights import selection_callbacks
from tslrec.training.checkpoints import Checkpoints
from tslrec.training.next_item import NextItemModule
from tslrec.training.resuming import Resuming, fit
from tslrec.training.sampled_softmax import NegativeSampler
from tslrec.training.soft_targets import SoftTargets
from tslrec.training.trainer import StageTrainers

NUM_ITEMS, SIZE, MAX_LEN = 23, 8, 6
Outcome = tuple[dict[str, float], dict[str, Tensor]]
"""Numbers and arrays that rank 0 has at the end."""


def market(num_users: int) -> Interactions:
    """Users with 3 to 11 interactions."""
    draw = np.random.default_rng(0)
    return make_interactions(
        [draw.integers(1, NUM_ITEMS + 1, draw.integers(3, 12)).tolist() for _ in range(num_users)], NUM_ITEMS
    )


def data_module(
    interactions: Interactions,
    *,
    all_positions: bool = True,
    packed: bool = False,
    batch_size: int = 24,
    masking: Masking | None = None,
    with_places: bool = False,
) -> SequenceDataModule:
    return SequenceDataModule(
        interactions,
        max_len=MAX_LEN,
        batch_size=batch_size,
        eval_batch_size=8,
        all_positions=all_positions,
        packed=packed,
        seed=1,
        masking=masking,
        with_places=with_places,
    )


def make_trainer(folder: Path, processes: int, **settings: Any) -> lightning.Trainer:
    config = TrainerConfig("cpu", devices=processes, strategy="ddp" if processes > 1 else "auto")
    return stage_trainers(config, "test", folder)(**settings)


def stage_trainers(config: TrainerConfig, stage: str, folder: Path) -> StageTrainers:
    checkpoints = Checkpoints(folder.with_name(f"{folder.name}.checkpoints"))
    return StageTrainers(config, stage, folder, checkpoints=checkpoints, meter=Meter())


def make_module(
    kind: Callable[..., Any],
    item_embedding: ItemEmbedding | None = None,
    of_loss: Mapping[str, Any] | None = None,
    **numbers: Any,
) -> Recording:
    torch.manual_seed(0)
    item_embedding = item_embedding or IdEmbedding(NUM_ITEMS, SIZE)
    backbone = kind(item_embedding, 100, MAX_LEN, **numbers)
    return Recording(backbone, learning_rate=1e-2, weight_decay=0.0, **(of_loss or {}))


class Recording(NextItemModule):
    """Notes which users this process tests."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.evaluated: list[int] = []

    def test_step(self, batch: SequenceBatch, batch_idx: int) -> None:
        super().test_step(batch, batch_idx)
        self.evaluated += batch.users_B.tolist()


def evaluate(folder: Path, processes: int, *, num_users: int) -> Outcome:
    """Evaluates a model with fixed weights, whose fusion has buffers, which DDP handles."""
    torch.manual_seed(1)
    fusion = GatedFusion(NUM_ITEMS, SIZE, knowledge_IH=torch.randn(NUM_ITEMS + 1, 5))
    module = make_module(SASRec, fusion)
    trainer = make_trainer(folder, processes, max_epochs=1)
    data = data_module(market(num_users))
    metrics = {**trainer.validate(module, data, verbose=False)[0], **trainer.test(module, data, verbose=False)[0]}
    shares: list[list[int]] = [module.evaluated]
    if processes > 1:
        shares = [[] for _ in range(processes)]
        torch.distributed.all_gather_object(shares, module.evaluated)
    ranks = module.test_ranks.gather(num_users, module.device)
    return dict(metrics), {"evaluated": torch.tensor(sorted(user for share in shares for user in share)), **ranks}


class SameDraws(lightning.Callback):
    """Makes all processes draw the same negatives; without it each draws its own, as it does dropout masks."""

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        torch.manual_seed(trainer.current_epoch)


def train(
    folder: Path,
    processes: int,
    *,
    kind: Callable[..., Any],
    all_positions: bool,
    num_negatives: int | None = None,
    taught: bool = False,
    **numbers: Any,
) -> Outcome:
    """Trains three epochs without dropout; the last batch of each epoch has one instance."""
    data = data_module(market(31), all_positions=all_positions, packed=all_positions, with_places=taught)
    batches: Any = data.batches.indices
    # The smallest batch size, from the given one on, that leaves one instance over.
    batches.batch_size = next(
        size for size in range(batches.batch_size, batches.num_instances) if batches.num_instances % size == 1
    )
    of_loss: dict[str, Any] = {}
    if taught:
        of_loss |= {"label_smoothing": 0.1, "soft_targets": random_soft_targets(data.interactions)}
    if num_negatives is not None:
        counts_I = np.bincount(data.interactions.items, minlength=NUM_ITEMS + 1)
        of_loss["sampler"] = NegativeSampler(counts_I, num_negatives=num_negatives, exponent=0.75)
    module = make_module(kind, of_loss=of_loss, **numbers)
    best, callbacks = selection_callbacks("masked", patience=10)
    trainer = make_trainer(folder, processes, max_epochs=3, callbacks=[*callbacks, SameDraws()])
    trainer.fit(module, data)
    steps = trainer.global_step
    metrics = {"steps": float(steps), "loss": float(trainer.callback_metrics["train/loss"]), "best": float(best.epoch)}
    weights = {name: value.detach().clone() for name, value in module.backbone.state_dict().items()}
    start = dict(make_module(kind, **numbers).backbone.named_parameters())
    moved = min(float((weights[name] - start[name].detach()).abs().max()) for name in start)
    return {**metrics, "moved": moved}, weights


def random_soft_targets(interactions: Interactions) -> SoftTargets:
    """Four items with shares for each training target."""
    draw = np.random.default_rng(2)
    is_target_N = interactions.is_training_N
    is_target_N[interactions.offsets[:-1]] = False
    rows = int(is_target_N.sum())
    items_XK = np.array([draw.permutation(NUM_ITEMS)[:4] + 1 for _ in range(rows)], dtype=np.int32)
    shares_XK = torch.from_numpy(draw.normal(size=(rows, 4)).astype(np.float32)).softmax(dim=1)
    return SoftTargets(torch.from_numpy(items_XK), shares_XK, torch.from_numpy(is_target_N), 0.6)


def seeds(folder: Path, processes: int) -> Outcome:
    """The seed of each process during training, which decides its dropout masks."""
    found: list[int] = []

    class Seeds(lightning.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            found[:] = [torch.initial_seed()] * processes

    module = make_module(SASRec)
    lightning.seed_everything(5, verbose=False)
    make_trainer(folder, processes, max_epochs=1, callbacks=[Seeds()]).fit(module, data_module(market(9)))
    if processes > 1:
        torch.distributed.all_gather_object(found, found[0])
    return {}, {"seeds": torch.tensor(found)}


def preferences(folder: Path, processes: int) -> Outcome:
    """The preference SFT with 19 held-back users in batches of 6: the last batch, of one user, goes to one process."""
    folder.mkdir(parents=True, exist_ok=True)
    config = TrainerConfig("cpu", devices=processes, llm_strategy="ddp" if processes > 1 else "auto")
    context = sft_context(
        folder, stage_trainers(config, "sft", folder / "sft"), max_epochs=2, held_back=0.2, eval_batch_size=6
    )
    metrics = sft.run(context)
    del metrics["training_seconds"]
    weights = {} if torch.distributed.is_initialized() and torch.distributed.get_rank() > 0 else trained_weights(folder)
    return metrics, weights


def trained_weights(folder: Path) -> dict[str, Tensor]:
    """The weights that the SFT stage has written."""
    adapter = load_file(folder / "sft" / "adapter" / "adapter_model.safetensors")
    return {**adapter, **load_file(folder / "sft" / "heads.safetensors")}


def on_a_gpu(folder: Path, processes: int) -> Outcome:
    """As on GPUs, which read and exchange flags late: a NaN in one process stops all, and so does a signal to one."""

    class Signal(lightning.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            (resuming,) = (each for each in trainer.callbacks if isinstance(each, Resuming))
            if trainer.global_step == 1 and trainer.global_rank == processes - 1:
                resuming.note_signal(signal.SIGTERM, None)

    with (
        mock.patch("tslrec.system.devices.queues_work", return_value=True),
        mock.patch("tslrec.training.spaced_exchange.MOST_STEPS", 2),
    ):
        diverge(folder / "diverging", processes)
        trainer = make_trainer(folder / "stopping", processes, max_epochs=3, callbacks=[Signal()])
        with pytest.raises(StoppedError, match="stopped by SIGTERM"):
            fit(trainer, make_module(SASRec), data_module(market(31)))
        numbers, arrays = evaluate(folder / "evaluated", processes, num_users=17)
    # One process alone stops after the step; two stop with the next exchange.
    assert trainer.global_step in ((2,) if processes == 1 else (2, 3))
    return numbers, arrays


def diverge(folder: Path, processes: int) -> Outcome:
    """The weights of the last rank become NaN in the second step; every rank must raise the error."""

    class Poison(lightning.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if trainer.global_step == 1 and trainer.global_rank == processes - 1:
                pl_module.backbone.item_embedding.weight.data.fill_(torch.nan)

    trainer = make_trainer(folder, processes, max_epochs=1, callbacks=[Poison()])
    with pytest.raises(UserError, match=r"test: the loss is not finite at step 1 \(epoch 0, batch 1\)"):
        trainer.fit(make_module(SASRec), data_module(market(31)))
    return {"steps": float(trainer.global_step)}, {}


SCENARIOS: dict[str, Callable[[Path, int], Outcome]] = {
    # 17 users: one process has two batches of 8, the other one.
    "uneven": lambda folder, processes: evaluate(folder, processes, num_users=17),
    "alone": lambda folder, processes: evaluate(folder, processes, num_users=1),
    "causal": lambda folder, processes: train(
        folder, processes, kind=SASRec, all_positions=True, inner_size=16, hidden_dropout=0.0, attention_dropout=0.0
    ),
    "sampled": lambda folder, processes: train(
        folder,
        processes,
        kind=SASRec,
        all_positions=True,
        num_negatives=6,
        inner_size=16,
        hidden_dropout=0.0,
        attention_dropout=0.0,
    ),
    "taught": lambda folder, processes: train(
        folder,
        processes,
        kind=SASRec,
        all_positions=True,
        taught=True,
        inner_size=16,
        hidden_dropout=0.0,
        attention_dropout=0.0,
    ),
    "prefix": lambda folder, processes: train(folder, processes, kind=FMLPRec, all_positions=False, dropout=0.0),
    "penalised": lambda folder, processes: train(
        folder, processes, kind=Caser, all_positions=False, dropout=0.0, reg_weight=1e-2
    ),
    "seeds": seeds,
    "preferences": preferences,
    "diverging": diverge,
    "on_a_gpu": on_a_gpu,
}


def main(folder: Path) -> None:
    """Runs every scenario as one process of two; rank 0 writes the outcomes."""
    for name, scenario in SCENARIOS.items():
        numbers, arrays = scenario(folder / name, 2)
        if torch.distributed.get_rank() == 0:
            (folder / f"{name}.json").write_text(json.dumps(numbers))
            save_file({key: value.contiguous() for key, value in arrays.items()}, folder / f"{name}.safetensors")


if __name__ == "__main__":
    run_program(lambda: main(Path(sys.argv[1])))
