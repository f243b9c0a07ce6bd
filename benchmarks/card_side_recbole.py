"""Measures cases of RecBole on a card: its data set, loaders, models, training loop and evaluator as shipped.

As in `side_recbole.py`, autograd's anomaly mode is off, and FMLP-Rec is the authors' encoder in RecBole's pipeline. An
epoch that takes longer than `MOST_SECONDS` is ended and scaled by its targets. All users are evaluated with each of
`EVALUATION_BATCHES`, and the faster one counts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any

import newer_packages

newer_packages.install()

import torch  # noqa: E402
from recbole.config import Config  # noqa: E402
from recbole.data import create_dataset, data_preparation  # noqa: E402
from recbole.data.dataloader import FullSortEvalDataLoader  # noqa: E402
from recbole.trainer import Trainer  # noqa: E402
from recbole.utils import init_seed  # noqa: E402

from card_measure import Span, Spans, card_record  # noqa: E402
from card_worker import Request, serve  # noqa: E402
from cases import CASES, Case  # noqa: E402
from side_recbole import SEED, settings  # noqa: E402

MOST_SECONDS = 5.0
WARM_UP = 10
"""Batches before the clock starts."""
EVALUATION_BATCHES = (256, 4096)
"""Users that are scored at a time: what is fastest on a CPU, and RecBole's default."""


@dataclass
class Limited:
    """The first batches of a loader: as many as given, and none after some seconds.

    Attributes:
        loader: RecBole's.
        batches: the most.
        seconds: the most.
        targets: of the batches that were given out.
    """

    loader: Any
    batches: int | None = None
    seconds: float | None = None
    targets: int = field(default=0, init=False)

    def __iter__(self) -> Iterator[Any]:
        began = time.perf_counter()
        for number, batch in enumerate(self.loader, start=1):
            yield batch
            self.targets += len(batch)
            if number == self.batches or (self.seconds is not None and time.perf_counter() - began > self.seconds):
                return


LOADERS: dict[str, Any] = {}
"""By data set and length: a training and a validation loader, made once; no model of these changes them."""


def configure(case: Case, request: Request, **changed: Any) -> tuple[type, Config]:
    """RecBole's class of a case, and its configuration."""
    model_class, numbers = settings(case, request.folder)
    on_card = request.device.type == "cuda"
    place = {"use_gpu": on_card, "gpu_id": os.environ.get("CUDA_VISIBLE_DEVICES", "0") if on_card else ""}
    config = Config(model=model_class, dataset=case.data, config_dict={**numbers, **place, **changed})
    if torch.device(config["device"]).type != request.device.type:
        raise RuntimeError(f"RecBole runs on {config['device']}, not on {request.device}")
    init_seed(SEED, config["reproducibility"])
    return model_class, config


def loaders(case: Case, config: Config) -> Any:
    """Training and validation loaders of a case."""
    key = f"{case.data} {case.max_len}"
    if key not in LOADERS:
        LOADERS[key] = data_preparation(config, create_dataset(config))[:2]
    return LOADERS[key]


def measure(request: Request) -> dict[str, Any]:
    """The record of one request."""
    os.chdir(request.folder)
    torch.autograd.set_detect_anomaly(False)
    case = request.case
    if case is None:
        first = next(each for each in CASES if each.data == request.data and each.recbole)
        _, config = configure(first, request)
        return {"users": len(loaders(first, config)[1]._dataset)}
    model_class, config = configure(case, request)
    train_data, valid_data = loaders(case, config)
    trainer = Trainer(config, model_class(config, train_data._dataset).to(config["device"]))
    trainer.eval_collector.data_collect(train_data)

    spans = Spans(request.device)
    for limited in (Limited(train_data, batches=WARM_UP), Limited(train_data, seconds=MOST_SECONDS)):
        spans.begin()
        trainer._train_epoch(limited, len(spans.training))
        spans.training.append(spans.end(limited.targets))

    by_batch: dict[int, list[Span]] = {}
    for size in EVALUATION_BATCHES:
        _, sized = configure(case, request, eval_batch_size=size)
        loader = FullSortEvalDataLoader(sized, valid_data._dataset, valid_data._sampler, shuffle=False)
        by_batch[size] = []
        for _ in range(2):
            spans.begin()
            trainer.evaluate(loader, load_best_model=False)
            by_batch[size].append(spans.end())
    fastest = min(by_batch, key=lambda size: by_batch[size][-1].seconds)
    return {
        **card_record(
            spans,
            targets=len(train_data._dataset),
            evaluations=by_batch[fastest][1:],
            evaluated_users=len(valid_data._dataset),
            model=trainer.model,
        ),
        "whole_epoch": spans.training[-1].targets == len(train_data._dataset),
        "evaluation_batch": fastest,
        "evaluation_seconds_by_batch": {str(size): each[-1].seconds for size, each in by_batch.items()},
        "versions": {name: version(name) for name in ("recbole", "torch", "numpy", "pandas")},
    }


if __name__ == "__main__":
    serve(measure)
