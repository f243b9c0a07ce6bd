"""Trainings of which nothing is lost: checkpoints while one runs, an orderly end on a signal, and going on.

A training that was killed and started again ends with the weights and the metrics of one that was not: the sampler's
place, the random states, optimizer, schedule, early stopping and the log are part of a checkpoint.
"""

from __future__ import annotations

import random
import signal
import time
from types import FrameType
from typing import Any

import lightning
import numpy as np
import torch

from tslrec.checkpoints import STATE, Checkpoints
from tslrec.errors import StoppedError
from tslrec.measuring import Meter
from tslrec.ranks import any_in_any_process, process_place
from tslrec.stage_log import StageLog

SIGNALS = (signal.SIGTERM, signal.SIGUSR1)
"""What a scheduler sends some time before it kills."""

GRACE = 20.0
"""Seconds that a validation may go on after a signal, for the checkpoint behind it; SLURM kills after 30 by default."""


def fit(trainer: lightning.Trainer, module: lightning.LightningModule, data: lightning.LightningDataModule) -> None:
    """Trains; from the newest checkpoint that is whole, where the trainer keeps checkpoints and there is one."""
    resuming = next((each for each in trainer.callbacks if isinstance(each, Resuming)), None)  # type: ignore[attr-defined]
    newest = None if resuming is None else resuming.checkpoints.newest()
    if resuming is None:
        trainer.fit(module, data)
        return
    if newest is None:
        trainer.fit(module, data)
    else:
        folder, manifest = newest
        resuming.meter.go_on(manifest)
        resuming.checkpoints.tell(f"{resuming.stage}: goes on from step {manifest['step']}")
        trainer.fit(module, data, ckpt_path=folder / STATE, weights_only=True)
    # A signal that came in the last step or the last validation.
    resuming.stop_if_asked_to(trainer)


class Resuming(lightning.Callback):
    """Writes checkpoints between optimizer steps, and restores what Lightning does not.

    Args:
        stage: for messages.
        checkpoints: where they lie.
        every_seconds: between two checkpoints; 0 writes one after every step.
        stage_log: the stage's; it goes on where the checkpoint was.
        meter: goes on as well: what a stage cost is the sum over the processes that worked on it.
    """

    def __init__(
        self, stage: str, checkpoints: Checkpoints, *, every_seconds: float, stage_log: StageLog, meter: Meter
    ) -> None:
        self.stage = stage
        self.checkpoints = checkpoints
        self.every_seconds = every_seconds
        self.stage_log = stage_log
        self.meter = meter
        self.written = time.monotonic()
        self.received: int | None = None
        self.received_at = 0.0
        self.random_states: list[dict[str, Any]] = []
        self.to_restore: dict[str, Any] | None = None

    def take_signals(self) -> None:
        """Takes the place of Lightning's handlers, which talk to the other processes in the middle of what these do.

        They are there only once a training or a test has begun; at its end Lightning gives all signals back.
        """
        for number in SIGNALS:
            signal.signal(number, self.receive)

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Only notes the signal: the training stops where its state is whole."""
        self.received, self.received_at = number, time.monotonic()

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.take_signals()
        self.written = time.monotonic()

    def on_test_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.take_signals()

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self.to_restore is not None:
            restore_random_state(self.to_restore)
            self.to_restore = None

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Writes a checkpoint if it is time; not after an epoch's last step, which its validation belongs to."""
        if trainer.is_last_batch:
            return
        due = trainer.is_global_zero and time.monotonic() - self.written >= self.every_seconds
        stopped, due = any_in_any_process([self.received is not None, due], trainer.strategy.root_device)
        if stopped or due:
            self.write(trainer)
        if stopped:
            self.stop(trainer)

    def on_validation_batch_end(self, trainer: lightning.Trainer, *_: Any, **__: Any) -> None:
        """Lets a short validation end: no checkpoint can be written in its midst, but after the next step."""
        self.stop_if_asked_to(trainer, grace=GRACE)

    def on_test_batch_end(self, trainer: lightning.Trainer, *_: Any, **__: Any) -> None:
        self.stop_if_asked_to(trainer)

    def stop_if_asked_to(self, trainer: lightning.Trainer, grace: float = 0.0) -> None:
        """Ends the run where a signal has come, in any process, at least so many seconds ago."""
        asked = self.received is not None and time.monotonic() - self.received_at >= grace
        (stopped,) = any_in_any_process([asked], trainer.strategy.root_device)
        if stopped:
            self.stop(trainer)

    def stop(self, trainer: lightning.Trainer) -> None:
        """Ends the run.

        Raises:
            StoppedError: always.
        """
        number = self.received or signal.SIGTERM
        then = "goes on from its last checkpoint" if self.checkpoints.all() else "starts it anew"
        name = signal.Signals(number).name
        raise StoppedError(
            f"{self.stage}: stopped by {name} at step {trainer.global_step}; the same command {then}", number
        )

    def write(self, trainer: lightning.Trainer) -> None:
        """Writes a checkpoint, in which all processes take part."""
        self.random_states = every_random_state()
        if trainer.is_global_zero:
            self.checkpoints.begin()
        trainer.strategy.barrier()
        trainer.save_checkpoint(self.checkpoints.aside / STATE)
        if trainer.is_global_zero:
            self.checkpoints.publish(trainer.global_step, self.meter.facts())
        trainer.strategy.barrier()
        self.written = time.monotonic()

    def state_dict(self) -> dict[str, Any]:
        return {"random": self.random_states, "log": self.stage_log.text()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        rank, _ = process_place()
        self.stage_log.go_on(state_dict["log"])
        # Processes that there were none of before draw as they were seeded.
        if rank < len(state_dict["random"]):
            self.to_restore = state_dict["random"][rank]


def every_random_state() -> list[dict[str, Any]]:
    """The random states of all processes, by rank."""
    _, world_size = process_place()
    states = [random_state()]
    if world_size > 1:
        states = [{} for _ in range(world_size)]
        torch.distributed.all_gather_object(states, random_state())
    return states


def random_state() -> dict[str, Any]:
    """Where Python, NumPy, torch and its GPUs go on to draw."""
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": (str(kind), torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Goes on drawing where `random_state` was taken."""
    random.setstate(state["python"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if len(state["cuda"]) == torch.cuda.device_count():
        for device, each in enumerate(state["cuda"]):
            torch.cuda.set_rng_state(each, device)
