"""Measures one case in RecBole's environment: its data set, loaders, models, training loop and evaluator as shipped.

Only this is taken away: autograd's anomaly mode, which importing RecBole's sequential models switches on for all of
them (its SINE does, at import); `--anomaly` leaves it on. What stands between batches (loading the next, the loss's
own value, the check for NaN) is part of a batch's time, as it is on our side.

The argument `--folder` holds the data as an atomic file, `DATA/DATA.inter`, and takes what RecBole writes.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.model.abstract_recommender import SequentialRecommender
from recbole.model.sequential_recommender import Caser, GRU4Rec, SASRec
from recbole.trainer import Trainer
from recbole.utils import init_seed
from torch import Tensor, nn

from cases import CASES, KINDS, SIZES, Case
from fmlp_reference import FMLPReference, left_padded
from measure import MemoryAboveImports, evaluation_record, print_record, training_record

SEED = 2020


class FMLPRec(SequentialRecommender):
    """The authors' encoder inside RecBole's cross-entropy pipeline."""

    def __init__(self, config: Config, dataset: Any) -> None:
        super().__init__(config, dataset)
        self.encoder = FMLPReference(
            self.n_items, self.max_seq_length, config["hidden_size"], config["n_layers"], config["dropout_prob"]
        )
        self.loss_fct = nn.CrossEntropyLoss()

    def full_sort_predict(self, interaction: Any) -> Tensor:
        items_BL = left_padded(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])
        return self.encoder(items_BL) @ self.encoder.item_embeddings.weight.T

    def calculate_loss(self, interaction: Any) -> Tensor:
        return self.loss_fct(self.full_sort_predict(interaction), interaction[self.POS_ITEM_ID])


def model_settings(case: Case) -> tuple[type[SequentialRecommender], dict[str, Any]]:
    """RecBole's class, and the sizes of `SIZES` under its names."""
    sizes = SIZES[case.model]
    if case.model == "sasrec":
        return SASRec, {
            "hidden_size": case.hidden_size,
            "n_layers": sizes["num_layers"],
            "n_heads": sizes["num_heads"],
            "inner_size": sizes["inner_size"],
            "hidden_dropout_prob": case.dropout,
            "attn_dropout_prob": case.dropout,
        }
    if case.model == "fmlp":
        return FMLPRec, {
            "hidden_size": case.hidden_size,
            "n_layers": sizes["num_layers"],
            "dropout_prob": case.dropout,
        }
    if case.model == "gru4rec":
        return GRU4Rec, {
            "embedding_size": case.hidden_size,
            "hidden_size": sizes["gru_size"],
            "num_layers": sizes["num_layers"],
            "dropout_prob": case.dropout,
        }
    assert case.model == "caser"
    return Caser, {
        "embedding_size": case.hidden_size,
        "nv": sizes["num_vertical"],
        "nh": sizes["num_horizontal"],
        "reg_weight": sizes["reg_weight"],
        "dropout_prob": case.dropout,
    }


def settings(case: Case, folder: Path) -> tuple[type[SequentialRecommender], dict[str, Any]]:
    model_class, model = model_settings(case)
    return model_class, {
        **model,
        "data_path": str(folder),
        "checkpoint_dir": str(folder / "saved"),
        "load_col": {"inter": ["user_id", "item_id", "timestamp"]},
        "MAX_ITEM_LIST_LENGTH": case.max_len,
        "train_batch_size": case.batch_size,
        "eval_batch_size": case.recbole_eval_batch_size,
        "learning_rate": case.learning_rate,
        "loss_type": "CE",
        "train_neg_sample_args": None,
        "eval_args": {"split": {"LS": "valid_and_test"}, "group_by": "user", "order": "TO", "mode": "full"},
        "repeatable": True,
        "metrics": ["Hit", "NDCG"],
        "topk": [5, 10],
        "valid_metric": "NDCG@10",
        "use_gpu": False,
        "show_progress": False,
        "seed": SEED,
        "state": "WARNING",
    }


class FirstBatches:
    """The first batches of a loader, each timed from one request for a batch to the next."""

    def __init__(self, loader: Any, limit: int) -> None:
        self.loader = loader
        self.limit = limit
        self.batches: list[tuple[float, int]] = []

    def __iter__(self) -> Iterator[Any]:
        began = time.perf_counter()
        for batch in self.loader:
            yield batch
            now = time.perf_counter()
            self.batches.append((now - began, len(batch)))
            if len(self.batches) == self.limit:
                return
            began = now


def measure(case: Case, folder: Path, *, anomaly: bool, kind: str) -> dict[str, Any]:
    """The record of one case."""
    effort = case.effort("recbole", kind)
    torch.autograd.set_detect_anomaly(anomaly)
    memory = MemoryAboveImports()
    model_class, numbers = settings(case, folder)
    config = Config(model=model_class, dataset=case.data, config_dict=numbers)
    init_seed(SEED, config["reproducibility"])
    train_data, valid_data, _ = data_preparation(config, create_dataset(config))
    trainer = Trainer(config, model_class(config, train_data._dataset))
    trainer.eval_collector.data_collect(train_data)

    first = FirstBatches(train_data, effort.warm_up + effort.batches)
    trainer._train_epoch(first, 0)
    control = None
    if effort.whole_epoch:
        began = time.perf_counter()
        trainer._train_epoch(train_data, 1)
        control = time.perf_counter() - began
    trained = training_record(first.batches, effort.warm_up, len(train_data._dataset), control, memory.peak_gib())

    memory.restart()
    seconds = []
    for _ in range(effort.evaluations):
        began = time.perf_counter()
        trainer.evaluate(valid_data, load_best_model=False)
        seconds.append(time.perf_counter() - began)
    return {
        **trained,
        **evaluation_record(seconds, len(valid_data._dataset), memory.peak_gib()),
        "parameters": sum(parameter.numel() for parameter in trainer.model.parameters()),
        "anomaly_mode": torch.is_anomaly_enabled(),
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in ("recbole", "torch", "numpy")},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", required=True, choices=[case.name for case in CASES if case.recbole])
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--anomaly", action="store_true")
    parser.add_argument("--effort", default="whole", choices=KINDS)
    arguments = parser.parse_args()
    # RecBole reads the command line too, and writes its logs into the working folder.
    del sys.argv[1:]
    os.chdir(arguments.folder)
    case = next(case for case in CASES if case.name == arguments.case)
    print_record(measure(case, arguments.folder, anomaly=arguments.anomaly, kind=arguments.effort))


if __name__ == "__main__":
    main()
