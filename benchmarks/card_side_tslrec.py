"""Measures cases of the project on a card, through what a run goes through: data module, Lightning trainer, evaluator.

A training of a few epochs, each followed by its validation, as in a run: the model stays on the card, and the first
epoch, in which kernels are loaded and graphs captured, does not count.
"""

from __future__ import annotations

import tempfile
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning
import torch
from omegaconf import OmegaConf

from card_measure import Spans, card_record
from card_worker import Request, serve
from floor import epoch_flops
from side_tslrec import ROOT, SEED, build_data, build_module, load_file
from tslrec.data.interactions import Interactions
from tslrec.data.windows import all_prefixes
from tslrec.settings.trainer import TrainerConfig
from tslrec.settings.training import TrainingConfig
from tslrec.stages.recommender import steps_per_batch
from tslrec.system.memory import keep_freed_memory, use_large_pages
from tslrec.system.meter import Meter
from tslrec.training.checkpoints import Checkpoints
from tslrec.training.trainer import StageTrainers

EPOCHS = 4
"""Of a training; the first does not count."""


class EpochWatch(lightning.Callback):
    """Measures each epoch's training and its validation.

    Args:
        spans: takes them.
        targets: of an epoch.
    """

    def __init__(self, spans: Spans, targets: int) -> None:
        self.spans = spans
        self.targets = targets

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.spans.begin()

    def on_validation_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """The epoch's last batch is over."""
        self.spans.training.append(self.spans.end(self.targets))
        self.spans.begin()

    def on_validation_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.spans.evaluation.append(self.spans.end())


@cache
def interactions_of(data: str, file: Path, *, made_up: bool) -> Interactions:
    """A data set, read once."""
    return load_file(data, file, made_up=made_up)


def trainer_config(device: torch.device, precision: str) -> TrainerConfig:
    """`trainer=gpu` (in a rehearsal `trainer=cpu`) with a precision of fp32 products."""
    name = "gpu" if device.type == "cuda" else "cpu"
    section = OmegaConf.merge(
        OmegaConf.structured(TrainerConfig), OmegaConf.load(ROOT / "configs" / "trainer" / f"{name}.yaml")
    )
    section.matmul_precision = precision
    config = OmegaConf.to_object(section)
    assert isinstance(config, TrainerConfig)
    return config


def measure(request: Request) -> dict[str, Any]:
    """The record of one request."""
    interactions = interactions_of(request.data, request.file, made_up=request.tiny)
    case = request.case
    if case is None:
        return {"users": interactions.num_users}
    lightning.seed_everything(SEED, verbose=False)
    config = trainer_config(request.device, request.precision)
    # As the stage of a run chooses.
    grouped = steps_per_batch(config, TrainingConfig())
    module = build_module(case, interactions, steps_per_batch=grouped)
    data = build_data(case, interactions, module.backbone, steps_per_batch=grouped)
    contexts_N = all_prefixes(interactions, case.max_len)
    spans = Spans(request.device)
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = Checkpoints(Path(folder, "checkpoints"))
        make = StageTrainers(config, "bench", Path(folder, "stage"), checkpoints=checkpoints, meter=Meter())
        trainer = make(max_epochs=EPOCHS, callbacks=[EpochWatch(spans, len(contexts_N))])
        trainer.fit(module, data)
    return {
        **card_record(
            spans,
            targets=len(contexts_N),
            evaluations=spans.evaluation[1:],
            evaluated_users=len(interactions.evaluated_users),
            model=module,
        ),
        "epoch_flops": epoch_flops(case, interactions.num_items, contexts_N.ends - contexts_N.starts),
        "steps_per_batch": grouped,
        "versions": {name: version(name) for name in ("torch", "lightning", "numpy")},
    }


if __name__ == "__main__":
    # As a run of `train.py` does.
    keep_freed_memory()
    use_large_pages()
    serve(measure)
