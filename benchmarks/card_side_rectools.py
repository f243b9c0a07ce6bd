"""Measures cases of RecTools on a card, where it has the model; `side_rectools.py` says what is compared.

A training of a few epochs by its default trainer, the first of which does not count; then `recommend` and
`calc_metrics` once for some users, to warm up, and once for all. They go in RecTools' default batches: most of the time
goes into frames on the CPU, whatever the batches are.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import newer_packages

newer_packages.install()

import torch  # noqa: E402
from pytorch_lightning import Callback, LightningModule, Trainer  # noqa: E402

from card_measure import Span, Spans, card_record  # noqa: E402
from card_worker import Request, serve  # noqa: E402
from cases import Case  # noqa: E402
from side_rectools import SEED, Split, evaluate, make_trainer, sasrec, sessions_of_a_step, split  # noqa: E402

EPOCHS = 3
"""Of a training; the first does not count."""
WARM_UP_USERS = 512


class EpochWatch(Callback):
    """Measures each epoch, of which the caller knows the targets."""

    def __init__(self) -> None:
        self.seconds: list[Span] = []
        self.spans = Spans(torch.device("cpu"))

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.spans.device = pl_module.device
        self.spans.begin()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.seconds.append(self.spans.end())


def card_trainer(accelerator: str) -> Trainer:
    """RecTools' default trainer with an `EpochWatch`."""
    return make_trainer(EpochWatch, EPOCHS, accelerator, None)


@cache
def split_of(folder: Path, data: str, max_len: int) -> Split:
    """A data set, read once."""
    return split(folder, data, max_len)


def measure(request: Request) -> dict[str, Any]:
    """The record of one request."""
    case = request.case
    if case is None:
        return {"users": len(split_of(request.folder, request.data, Case.max_len).validation)}
    data = split_of(request.folder, request.data, case.max_len)
    torch.manual_seed(SEED)
    model = sasrec(
        case,
        data,
        get_trainer_func=card_trainer,
        get_trainer_func_kwargs={"accelerator": "gpu" if request.device.type == "cuda" else "cpu"},
        recommend_torch_device=str(request.device),
    )
    model.fit(data.training)
    watch = next(each for each in model.fit_trainer.callbacks if isinstance(each, EpochWatch))
    spans = Spans(request.device)
    spans.training = [replace(span, targets=data.own_targets) for span in watch.seconds]

    evaluate(model, data, WARM_UP_USERS)
    spans.begin()
    evaluate(model, data)
    spans.evaluation.append(spans.end())
    return {
        **card_record(
            spans,
            targets=data.targets,
            evaluations=spans.evaluation,
            evaluated_users=len(data.validation),
            model=model.torch_model,
        ),
        "own_targets": data.own_targets,
        "sessions_of_a_step": sessions_of_a_step(case, data),
        "items": model.data_preparator.item_id_map.size - 1,
        "evaluation_batch": model.recommend_batch_size,
        "versions": {name: version(name) for name in ("rectools", "torch", "pytorch-lightning", "numpy", "pandas")},
    }


if __name__ == "__main__":
    serve(measure)
