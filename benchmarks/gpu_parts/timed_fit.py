"""Trains a module through the project's own trainer, on groups of batches, each timed as a whole.

One fit runs all groups one after the other, so that the language model is set up once. Within a group the clock is read
only at its beginning and its end: between them nothing waits for the card that would not wait in a training.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch

from gpu_parts.bench import Bench
from gpu_parts.random_llm import Cost
from tslrec.data.batching import Batches
from tslrec.reports.costs.activations import Step as PlannedStep
from tslrec.settings.trainer import TrainerConfig
from tslrec.system.meter import Meter, peak_memory_gib
from tslrec.training.checkpoints import Checkpoints
from tslrec.training.trainer import StageProgress, StageTrainers


@dataclass(frozen=True)
class Group:
    """Batches that are timed together.

    Attributes:
        name: prefix of its figures.
        batches: makes each batch; the first `warm_up` are not timed.
        cost: of one batch.
        warm_up: number of batches before the clock.
        checkpointing: compute activations again in the backward pass.
    """

    name: str
    batches: Sequence[Callable[[], Any]]
    cost: Callable[[Any], Cost]
    warm_up: int = 2
    checkpointing: bool = False


@dataclass(frozen=True)
class Timed:
    """What a group took.

    Attributes:
        group: the group.
        steps: timed batches.
        seconds: of all of them.
        cost: of all of them.
        largest: the batch with the most tokens, warm-up included.
        card: peak GiB on the card.
        host: peak GiB of this process.
    """

    group: Group
    steps: int
    seconds: float
    cost: Cost
    largest: PlannedStep
    card: float
    host: float

    @property
    def tokens_per_second(self) -> float:
        """Computed tokens a second, padding included."""
        return self.cost.computed / self.seconds

    @property
    def tflops(self) -> float:
        """TFLOP/s."""
        return self.cost.flops / self.seconds / 1e12


class Clock(lightning.Callback):
    """Times each group and tells of it when it has ended.

    Args:
        bench: of the step.
        groups: in order.
        tell: called after each group.
        switch: called before each group with its `checkpointing`.
    """

    def __init__(
        self, bench: Bench, groups: Sequence[Group], tell: Callable[[Timed], None], switch: Callable[[bool], None]
    ) -> None:
        self.bench = bench
        self.groups = list(groups)
        self.tell = tell
        self.switch = switch
        self.places = places_of(groups)
        self.costs: list[Cost] = []
        self.began = 0.0

    def start(self, batch: Any, batch_idx: int) -> None:
        """Before a batch."""
        group, place = self.groups[self.places[batch_idx][0]], self.places[batch_idx][1]
        if place == 0:
            self.costs = []
            self.switch(group.checkpointing)
            if self.bench.on_card:
                torch.cuda.synchronize()
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
        if place == group.warm_up:
            self.bench.synchronize()
            self.began = time.perf_counter()

    def end(self, batch: Any, batch_idx: int) -> None:
        """After a batch."""
        group, place = self.groups[self.places[batch_idx][0]], self.places[batch_idx][1]
        if place + 1 < len(group.batches):
            return
        self.bench.synchronize()
        seconds = time.perf_counter() - self.began
        # Counted only now: on the card a batch's tokens would have to be waited for.
        costs = [group.cost(make()) for make in group.batches]
        timed = costs[group.warm_up :]
        self.tell(
            Timed(
                group,
                len(timed),
                seconds,
                sum(timed[1:], start=timed[0]),
                sum(costs[1:], start=costs[0]).largest,
                torch.cuda.max_memory_allocated() / 2**30 if self.bench.on_card else 0.0,
                peak_memory_gib(),
            )
        )

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self.start(batch, batch_idx)

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.end(batch, batch_idx)

    def on_test_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.start(batch, batch_idx)

    def on_test_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.end(batch, batch_idx)


def places_of(groups: Sequence[Group]) -> list[tuple[int, int]]:
    """For each batch of all groups: the number of its group and its place in it."""
    return [(number, place) for number, group in enumerate(groups) for place in range(len(group.batches))]


def loader(groups: Sequence[Group]) -> Batches[Any]:
    """The batches of all groups, as the project's data loader gives them."""
    places = places_of(groups)

    def collate(number: Any) -> Any:
        group, place = places[int(number[0])]
        return groups[group].batches[place]()

    return Batches([np.array([number]) for number in range(len(places))], collate)


def make_trainer(
    bench: Bench, name: str, clock: Clock, *, gradient_clip: float, strategy: Any = "auto", precision: str = "32-true"
) -> lightning.Trainer:
    """The trainer of a stage, on the card or in a rehearsal on the CPU."""
    folder = bench.folder / "llm13b" / name
    config = TrainerConfig(
        name="gpu",
        accelerator="gpu" if bench.on_card else "cpu",
        llm_strategy=strategy,
        llm_precision=precision,
        # No checkpoint is written in a step.
        checkpoint_seconds=1e9,
    )
    trainers = StageTrainers(
        config, name, folder, checkpoints=Checkpoints(Path(f"{folder}.checkpoints")), meter=Meter()
    )
    trainer = trainers(max_epochs=1, llm=True, gradient_clip=gradient_clip, callbacks=[clock])
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        if isinstance(callback, StageProgress):
            # Standard output carries the figures; half a line of the bar would hide one.
            callback._console_kwargs = {"stderr": True}
    return trainer
