"""Measures one case in RecTools' environment: its SASRec, data set, loaders, Lightning module and recommendations.

RecTools trains all positions of a session in one pass with a softmax over all items, as ours does. What differs:

- its batch is a number of sessions, each padded to the whole length; as many are taken as hold the case's targets on
  average;
- it keeps the last `max_len + 1` items of a training part and drops earlier ones. Seconds are scaled to all targets of
  the training parts, so that all sides are compared by the same number; `own_targets` is what an epoch of its own has;
- its item table has only the items that occur in what it keeps (`items`);
- its own layers have a feed-forward part as wide as the model; its pre-norm layers, an option, have the case's width;
- Adam's second beta is .98.

Its evaluation is what its documentation does after a training: `recommend` ten items for every user, from raw ids to a
frame of raw ids, then `calc_metrics`. Like RecBole's, and unlike ours, it masks no history here.

The argument `--folder` holds the data as an atomic file, `DATA/DATA.inter`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from rectools import Columns
from rectools.dataset import Dataset
from rectools.metrics import NDCG, HitRate, calc_metrics
from rectools.models import SASRecModel
from rectools.models.nn.transformers.net_blocks import PreLNTransformerLayers

from cases import CASES, KINDS, SIZES, Case
from measure import MemoryAboveImports, evaluation_record, print_record, training_record

SEED = 0
K = 10
METRICS = {f"{metric.__name__}@{k}": metric(k=k) for metric in (HitRate, NDCG) for k in (5, 10)}
HELD_OUT = 2
"""The last items of a user, one to validate and one to test by."""


@dataclass(frozen=True)
class Split:
    """Leave-one-out of a data set.

    Attributes:
        training: all but each user's last two items, as RecTools' data set.
        validation: each user's last but one, as a frame.
        targets: of all training parts: each item but a user's first.
        own_targets: those of them that RecTools trains with a given length.
        sessions: users with a target.
    """

    training: Dataset
    validation: pd.DataFrame
    targets: int
    own_targets: int
    sessions: int


def split(folder: Path, data: str, max_len: int) -> Split:
    """Reads the atomic file of a data set."""
    rows = pd.read_csv(folder / data / f"{data}.inter", sep="\t")
    rows.columns = pd.Index([Columns.User, Columns.Item, Columns.Datetime])
    after = rows.groupby(Columns.User, sort=False).cumcount(ascending=False)
    rows[Columns.Datetime] = pd.to_datetime(rows[Columns.Datetime], unit="s")
    rows[Columns.Weight] = 1.0
    training = rows[after >= HELD_OUT]
    targets = training[Columns.User].value_counts() - 1
    return Split(
        Dataset.construct(training),
        rows[after == HELD_OUT - 1],
        int(targets.sum()),
        int(targets.clip(upper=max_len).sum()),
        int((targets > 0).sum()),
    )


class Stopwatch(Callback):
    """Seconds and training targets of each batch: from the end of one to the end of the next, loops and logs included.

    Attributes:
        batches: of the epoch.
        epoch_seconds: from the epoch's start to its end.
    """

    def __init__(self) -> None:
        self.batches: list[tuple[float, int]] = []
        self.epoch_seconds = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.began = self.mark = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        seconds = time.perf_counter() - self.mark
        self.batches.append((seconds, int((batch["y"] > 0).sum())))
        self.mark = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.epoch_seconds = time.perf_counter() - self.began


def make_trainer(watch: type[Callback], epochs: int, accelerator: str, limit: int | None) -> Trainer:
    """RecTools' default trainer, on a given device, with a stopwatch and perhaps fewer batches."""
    return Trainer(
        max_epochs=epochs,
        min_epochs=epochs,
        accelerator=accelerator,
        devices=1,
        callbacks=[watch()],
        limit_train_batches=1.0 if limit is None else limit,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        logger=False,
    )


def stopwatch_trainer(limit: int | None) -> Trainer:
    """One epoch on the CPU with a `Stopwatch`."""
    return make_trainer(Stopwatch, 1, "cpu", limit)


def sasrec(case: Case, data: Split, **more: Any) -> SASRecModel:
    """The case's model, not yet built.

    Args:
        case: its sizes.
        data: what it will be fitted to; determines how many sessions a step has.
        more: further arguments: the trainer, the device, ….
    """
    sizes = SIZES[case.model]
    return SASRecModel(
        n_blocks=sizes["num_layers"],
        n_heads=sizes["num_heads"],
        n_factors=case.hidden_size,
        session_max_len=case.max_len,
        dropout_rate=case.dropout,
        batch_size=sessions_of_a_step(case, data),
        lr=case.learning_rate,
        loss="softmax",
        transformer_layers_type=PreLNTransformerLayers,
        transformer_layers_kwargs={"ff_factors_multiplier": max(1, sizes["inner_size"] // case.hidden_size)},
        **more,
    )


def sessions_of_a_step(case: Case, data: Split) -> int:
    """How many sessions have the case's targets of a step, on average."""
    return max(1, round(case.batch_size * data.sessions / data.own_targets))


def evaluate(model: SASRecModel, data: Split, most: int | None = None) -> Mapping[str, float]:
    """Recommends to every user who has a validation item, or to the first ones, and measures these lists.

    Raises:
        RuntimeError: if a user got fewer items than asked for.
    """
    users = data.validation[Columns.User].unique()[:most]
    lists = model.recommend(users, data.training, k=K, filter_viewed=False)
    if len(lists) != K * len(users):
        raise RuntimeError(f"{len(lists)} rows for {len(users)} users instead of {K} each")
    found: Mapping[str, float] = calc_metrics(METRICS, lists, data.validation)
    return found


def measure(case: Case, folder: Path, *, kind: str) -> dict[str, Any]:
    """The record of one case."""
    effort = case.effort("rectools", kind)
    torch.manual_seed(SEED)
    memory = MemoryAboveImports()
    data = split(folder, case.data, case.max_len)

    def trained(limit: int | None) -> tuple[SASRecModel, Stopwatch]:
        model = sasrec(
            case,
            data,
            get_trainer_func=stopwatch_trainer,
            get_trainer_func_kwargs={"limit": limit},
            recommend_torch_device="cpu",
        )
        model.fit(data.training)
        return model, next(each for each in model.fit_trainer.callbacks if isinstance(each, Stopwatch))

    model, first = trained(effort.warm_up + effort.batches)
    control = None
    if effort.whole_epoch:
        model, whole = trained(None)
        control = whole.epoch_seconds * data.targets / data.own_targets
    record = training_record(first.batches, effort.warm_up, data.targets, control, memory.peak_gib())

    memory.restart()
    seconds = []
    for _ in range(effort.evaluations):
        began = time.perf_counter()
        evaluate(model, data)
        seconds.append(time.perf_counter() - began)
    return {
        **record,
        **evaluation_record(seconds, len(data.validation), memory.peak_gib()),
        "own_targets": data.own_targets,
        "sessions_of_a_step": sessions_of_a_step(case, data),
        "items": model.data_preparator.item_id_map.size - 1,
        "parameters": sum(parameter.numel() for parameter in model.torch_model.parameters()),
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in ("rectools", "torch", "pytorch-lightning", "numpy")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", required=True, choices=[case.name for case in CASES if case.rectools])
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--effort", default="whole", choices=KINDS)
    arguments = parser.parse_args()
    case = next(case for case in CASES if case.name == arguments.case)
    print_record(measure(case, arguments.folder, kind=arguments.effort))


if __name__ == "__main__":
    main()
