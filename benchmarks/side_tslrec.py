"""Measures one case of the project, through what a run goes through: data module, Lightning trainer, evaluator."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning
import torch
from omegaconf import OmegaConf

from cases import CASES, KINDS, SIZES, Case
from floor import epoch_flops
from growth import market
from measure import MemoryAboveImports, evaluation_record, print_record, training_record
from tslrec.data.datamodule import SequenceDataModule
from tslrec.data.ingest import ingest
from tslrec.data.interactions import Interactions
from tslrec.data.sequence_batch import TrainingBatch
from tslrec.data.windows import all_prefixes
from tslrec.models.backbones.base import Backbone, CausalBackbone
from tslrec.models.item_embedding import IdEmbedding
from tslrec.settings.data import DataConfig
from tslrec.settings.trainer import TrainerConfig
from tslrec.stages.building import build_backbone
from tslrec.system.memory import keep_freed_memory, use_large_pages
from tslrec.system.meter import Meter
from tslrec.training.checkpoints import Checkpoints
from tslrec.training.next_item import NextItemModule
from tslrec.training.trainer import StageTrainers

ROOT = Path(__file__).resolve().parent.parent
SEED = 0
EVAL_BATCH_SIZE = 512
"""The project's default."""
TARGETS = {
    "sasrec": "tslrec.models.backbones.sasrec.SASRec",
    "fmlp": "tslrec.models.backbones.fmlp.FMLPRec",
    "caser": "tslrec.models.backbones.caser.Caser",
    "gru4rec": "tslrec.models.backbones.gru4rec.GRU4Rec",
    "lru": "tslrec.models.backbones.lru.LRURec",
}


class Stopwatch(lightning.Callback):
    """Seconds and training targets of each batch: from the end of one to the end of the next, loops and logs included.

    Attributes:
        batches: of the epoch.
        epoch_seconds: from the epoch's start to its end.
    """

    def __init__(self) -> None:
        self.batches: list[tuple[float, int]] = []
        self.epoch_seconds = 0.0

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.began = self.mark = time.perf_counter()

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: TrainingBatch,
        batch_idx: int,
    ) -> None:
        seconds = time.perf_counter() - self.mark
        self.batches.append((seconds, batch.num_targets))
        self.mark = time.perf_counter()

    def on_train_epoch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.epoch_seconds = time.perf_counter() - self.began


def model_section(case: Case) -> dict[str, Any]:
    """The `model` section of a configuration with this case's sizes."""
    if case.model == "sasrec":
        dropout: dict[str, Any] = {"hidden_dropout": case.dropout, "attention_dropout": case.dropout}
    else:
        dropout = {"dropout": case.dropout}
    if case.model == "caser":
        dropout["use_user_embedding"] = True
    return {"_target_": TARGETS[case.model], **SIZES[case.model], **dropout}


def build_module(case: Case, interactions: Interactions, **more: Any) -> NextItemModule:
    """The module of a case; `more` are further arguments of it."""
    backbone = build_backbone(
        model_section(case),
        IdEmbedding(interactions.num_items, case.hidden_size),
        num_users=interactions.num_users,
        max_len=case.max_len,
    )
    return NextItemModule(backbone, learning_rate=case.learning_rate, weight_decay=0.0, **more)


def build_data(case: Case, interactions: Interactions, backbone: Backbone, **more: Any) -> SequenceDataModule:
    """The batches of a case, as its backbone takes them; `more` are further arguments of the data module."""
    return SequenceDataModule(
        interactions,
        max_len=case.max_len,
        batch_size=case.batch_size,
        eval_batch_size=EVAL_BATCH_SIZE,
        all_positions=backbone.causal,
        fixed_window=backbone.fixed_window,
        packed=isinstance(backbone, CausalBackbone) and backbone.packs,
        seed=SEED,
        **more,
    )


def measure(case: Case, load: Callable[[], Interactions], *, kind: str = "whole") -> dict[str, Any]:
    """The record of one case.

    Args:
        case: what to run.
        load: gives the data set; its memory counts.
        kind: of effort.
    """
    effort = case.effort("tslrec", kind)
    lightning.seed_everything(SEED, verbose=False)
    memory = MemoryAboveImports()
    interactions = load()
    module = build_module(case, interactions)
    data = build_data(case, interactions, module.backbone)
    with tempfile.TemporaryDirectory() as folder:

        def make_trainer(name: str, *callbacks: lightning.Callback) -> lightning.Trainer:
            checkpoints = Checkpoints(Path(folder, f"{name}.checkpoints"))
            make = StageTrainers(
                TrainerConfig(name="cpu"), "bench", Path(folder, name), checkpoints=checkpoints, meter=Meter()
            )
            return make(max_epochs=1, callbacks=callbacks)

        def train(name: str, limit: int | None) -> Stopwatch:
            stopwatch = Stopwatch()
            trainer = make_trainer(name, stopwatch)
            if limit is not None:
                trainer.limit_train_batches = limit
            fresh = build_data(case, interactions, module.backbone)
            trainer.fit(module, train_dataloaders=fresh.train_dataloader())
            return stopwatch

        first = train("batches", effort.warm_up + effort.batches)
        control = train("epoch", None).epoch_seconds if effort.whole_epoch else None
        contexts_N = all_prefixes(interactions, case.max_len)
        trained = training_record(first.batches, effort.warm_up, len(contexts_N), control, memory.peak_gib())

        memory.restart()
        seconds = []
        for i in range(effort.evaluations):
            trainer = make_trainer(f"evaluation{i}")
            began = time.perf_counter()
            trainer.validate(module, dataloaders=data.val_dataloader(), verbose=False)
            seconds.append(time.perf_counter() - began)
    return {
        **trained,
        **evaluation_record(seconds, len(interactions.evaluated_users), memory.peak_gib()),
        "epoch_flops": epoch_flops(case, interactions.num_items, contexts_N.ends - contexts_N.starts),
        "parameters": sum(parameter.numel() for parameter in module.parameters()),
        "users": interactions.num_users,
        "items": interactions.num_items,
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in ("torch", "lightning", "numpy")},
    }


def load_file(data: str, path: Path, *, made_up: bool = False) -> Interactions:
    """A data set of `configs/data`, from its raw file; a made-up one has another digest than the configured."""
    config = OmegaConf.merge(OmegaConf.structured(DataConfig), OmegaConf.load(ROOT / "configs/data" / f"{data}.yaml"))
    config.path = str(path)
    if made_up:
        config.download.sha256 = None
    resolved = OmegaConf.to_object(config)
    assert isinstance(resolved, DataConfig)
    return ingest(resolved, cache=path.parent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", required=True, choices=[case.name for case in CASES])
    parser.add_argument("--path", type=Path, help="the raw file, for a case that has one")
    parser.add_argument("--effort", default="whole", choices=KINDS)
    arguments = parser.parse_args()
    case = next(case for case in CASES if case.name == arguments.case)
    # As a run of `train.py` does.
    keep_freed_memory()
    use_large_pages()
    kind, _, scale = case.data.partition("_")
    load = (lambda: market(int(scale))) if kind == "growth" else (lambda: load_file(case.data, arguments.path))
    print_record(measure(case, load, kind=arguments.effort))


if __name__ == "__main__":
    main()
