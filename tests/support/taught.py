"""A small market, and the stages soft_targets and fusion of the method `distilled` on it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from support.interactions import make_interactions
from tslrec.config import Config
from tslrec.data.interactions import Interactions
from tslrec.settings.choices import MethodConfig
from tslrec.settings.data import DataConfig
from tslrec.settings.second_stages import SoftTargetsConfig
from tslrec.settings.trainer import TrainerConfig
from tslrec.settings.training import TrainingConfig
from tslrec.stages.context import StageContext
from tslrec.system.meter import Meter
from tslrec.training.checkpoints import Checkpoints
from tslrec.training.trainer import StageTrainers

ITEMS, MAX_LEN = 30, 6
MODEL = {"_target_": "tslrec.models.backbones.gru4rec.GRU4Rec", "name": "gru4rec", "hidden_size": 8}
PLAIN = {"_target_": "tslrec.models.item_embedding.IdEmbedding", "name": "plain"}


def market() -> Interactions:
    """Users with 1 to 14 items; some items occur again."""
    draw = np.random.default_rng(0)
    return make_interactions(
        [draw.integers(1, ITEMS + 1, length).tolist() for length in [5, 14, 1, 3, 2, 9, 12, 4, 7, 11] * 3], ITEMS
    )


def targets_of(interactions: Interactions) -> list[tuple[int, int, int]]:
    """Of each training target the begin of its user's items, its place and the item, written out by hand."""
    found = []
    for user in range(interactions.num_users):
        begin, length = int(interactions.offsets[user]), int(interactions.train_lengths[user])
        found += [(begin, place, int(interactions.items[place])) for place in range(begin + 1, begin + length)]
    return found


def context_of(folder: Path, name: str, *, trainer: TrainerConfig | None = None, **changes: Any) -> StageContext:
    """The context of a stage of the method `distilled`; `changes` are sections of the configuration."""
    config = Config(
        method=MethodConfig("distilled", ["ensemble", "soft_targets", "fusion"]),
        data=DataConfig("market", "market", {}),
        model=MODEL,
        fusion=PLAIN,
        training=TrainingConfig(max_len=MAX_LEN, batch_size=32, learning_rate=1e-2, max_epochs=2, eval_batch_size=8),
        soft_targets=SoftTargetsConfig(count=5),
        trainer=trainer or TrainerConfig("cpu", checkpoint_seconds=0.0),
        preset="tests",
    )
    config, output = replace(config, **changes), folder / name
    if output.exists():
        # As the artifact store does with what a killed process left.
        for path in sorted(output.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
    output.mkdir(parents=True, exist_ok=True)
    checkpoints, meter = Checkpoints(folder / f"{name}.checkpoints"), Meter()
    make_trainer = StageTrainers(config.trainer, name, output, checkpoints=checkpoints, meter=meter)
    inputs = {each: folder / each for each in ("ensemble", "soft_targets")}
    return StageContext(config, market(), 0, output, inputs, make_trainer, checkpoints, meter)
