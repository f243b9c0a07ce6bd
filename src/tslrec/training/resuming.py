"""Checkpoints during training, a clean stop on a signal, and resuming.

A training that was killed and started again ends with the same weights and metrics as one that ran through: the
sampler's position, the random states, optimizer, schedule, early stopping and the log are part of a checkpoint.
"""

from __future__ import annotations

import logging
import random
import signal
import time
from types import FrameType
from typing import Any

import lightning
import numpy as np
import torch

from tslrec.system import interruptions
from tslrec.system.errors import StoppedError
from tslrec.system.meter import Meter
from tslrec.system.processes import rank_and_world_size
from tslrec.training.checkpoints import STATE, Checkpoints
from tslrec.training.csv_log import CsvLog
from tslrec.training.spaced_exchange import SpacedExchange

log = logging.getLogger(__name__)


GRACE = 20.0
"""Seconds that a validation may still run after a signal, to reach the next checkpoint; SLURM kills after 30 seconds
by default."""


def fit(trainer: lightning.Trainer, module: lightning.LightningModule, data: lightning.LightningDataModule) -> None:
    """Trains; where the trainer writes checkpoints, training resumes from the newest intact one.

    Args:
        trainer: writes checkpoints if it has the callback `Resuming`.
        module: what is trained.
        data: its data.

    Raises:
        StoppedError: if a signal asked for a stop.
    """
    resuming = next((each for each in trainer.callbacks if isinstance(each, Resuming)), None)  # type: ignore[attr-defined]
    newest = None if resuming is None else resuming.checkpoints.newest()
    if resuming is None:
        trainer.fit(module, data)
        return
    if newest is None:
        trainer.fit(module, data)
    else:
        folder, manifest = newest
        resuming.meter.continue_from(manifest)
        log.info(f"{resuming.stage}: resumes from step {manifest['step']}")
        trainer.fit(module, data, ckpt_path=folder / STATE, weights_only=True)
    # A signal that came in the last step or the last validation was not handled yet.
    resuming.stop_if_asked_to(trainer)


class Resuming(lightning.Callback):
    """Writes checkpoints between optimizer steps, and restores what Lightning does not: random states and the log.

    Args:
        stage: the stage's name, for messages.
        checkpoints: the folder of the checkpoints.
        every_seconds: wall time between two checkpoints; 0 writes one after every optimizer step.
        stage_log: the stage's CSV log, which a resumed training continues.
        meter: the stage's cost so far, written into each checkpoint: a stage's cost is the sum over the runs that
            worked on it.
    """

    def __init__(
        self, stage: str, checkpoints: Checkpoints, *, every_seconds: float, stage_log: CsvLog, meter: Meter
    ) -> None:
        self.stage = stage
        self.checkpoints = checkpoints
        self.every_seconds = every_seconds
        self.stage_log = stage_log
        self.meter = meter
        self.written = time.monotonic()
        # With 0 seconds a checkpoint is due after every step, so that the ranks have to agree after every step.
        most = 1 if every_seconds == 0 else None
        self.exchange, self.exchange_in_evaluation = SpacedExchange(most), SpacedExchange()
        self.request = interruptions.StopRequest()
        self.random_states: list[dict[str, Any]] = []
        self.to_restore: dict[str, Any] | None = None

    def install_signal_handlers(self) -> None:
        """Replaces Lightning's signal handlers, which communicate with the other ranks in the middle of an operation.

        Lightning installs its own when a training or a test begins, and restores the earlier ones at its end.
        """
        interruptions.install(self.note_signal)

    def note_signal(self, number: int, frame: FrameType | None) -> None:
        """Only notes the signal: the training stops between two steps, where its state is consistent.

        A second Ctrl-C ends the process at once.
        """
        self.request.note(number)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.install_signal_handlers()
        self.written = time.monotonic()
        if trainer.num_training_batches == 1 and trainer.fit_loop.restarted_on_epoch_start:
            # Lightning takes the start of such an epoch for the end of its batch, and counts that for the logs.
            trainer.fit_loop.epoch_loop._batches_that_stepped -= 1

    def on_test_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.install_signal_handlers()

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Writes a checkpoint if one is due, where an epoch is a single batch, after which none can be written."""
        resumed = trainer.fit_loop.restarted_on_epoch_start
        if trainer.num_training_batches == 1 and trainer.global_step > 0 and not resumed:
            forget_the_last_epoch(trainer)
            self.write_if_due(trainer)

    def on_train_batch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self.to_restore is not None:
            restore_random_state(self.to_restore)
            self.to_restore = None

    def on_train_batch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Writes a checkpoint if one is due or a stop was asked for, but not between an epoch and its validation."""
        if not trainer.is_last_batch:
            self.write_if_due(trainer)

    def write_if_due(self, trainer: lightning.Trainer) -> None:
        """Writes a checkpoint if one is due or a stop was asked for; all ranks call it.

        Raises:
            StoppedError: if a stop was asked for.
        """
        due = trainer.is_global_zero and time.monotonic() - self.written >= self.every_seconds
        stopped, due = self.exchange.any_of([self.request.number is not None, due], trainer.strategy.root_device)
        if stopped or due:
            self.write(trainer)
        if stopped:
            self.stop(trainer)

    def on_validation_batch_end(self, trainer: lightning.Trainer, *_: Any, **__: Any) -> None:
        """Stops only if `GRACE` is over: a checkpoint cannot be written in a validation, only after the next step."""
        self.stop_if_asked_to(trainer, self.exchange_in_evaluation, grace=GRACE)

    def on_test_batch_end(self, trainer: lightning.Trainer, *_: Any, **__: Any) -> None:
        self.stop_if_asked_to(trainer, self.exchange_in_evaluation)

    def stop_if_asked_to(
        self, trainer: lightning.Trainer, exchange: SpacedExchange | None = None, *, grace: float = 0.0
    ) -> None:
        """Ends the run if any rank received a signal at least `grace` seconds ago.

        Args:
            trainer: gives the device.
            exchange: of several processes, says whether they exchange flags this time; None: they do.
            grace: seconds.

        Raises:
            StoppedError: if so, on every rank.
        """
        asked = self.request.number is not None and time.monotonic() - self.request.at >= grace
        (stopped,) = (exchange or SpacedExchange()).any_of([asked], trainer.strategy.root_device)
        if stopped:
            self.stop(trainer)

    def stop(self, trainer: lightning.Trainer) -> None:
        """Ends the run.

        Raises:
            StoppedError: always.
        """
        number = self.request.number or signal.SIGTERM
        # Signals that follow, such as one that a launcher passes on, must not disturb the end.
        interruptions.PROGRAM.begin(number)
        raise StoppedError(
            f"{self.stage}: stopped by {interruptions.name_of(number)} at step {trainer.global_step}; "
            f"the same command {self.checkpoints.future}",
            number,
        )

    def write(self, trainer: lightning.Trainer) -> None:
        """Writes a checkpoint; all ranks call it."""
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
        rank, _ = rank_and_world_size()
        self.stage_log.restore(state_dict["log"])
        # A rank beyond the earlier number of processes has no saved state and keeps its seed.
        if rank < len(state_dict["random"]):
            self.to_restore = state_dict["random"][rank]


def forget_the_last_epoch(trainer: lightning.Trainer) -> None:
    """Sets the batches of an epoch that has ended back to none, as Lightning does once the next one has started.

    Otherwise a training that resumes from a checkpoint of this moment would take the next epoch for ended.
    """
    loop = trainer.fit_loop.epoch_loop
    loop.batch_progress.reset_on_run()
    loop.scheduler_progress.reset_on_run()
    loop.automatic_optimization.optim_progress.reset_on_run()
    loop.val_loop.batch_progress.total.reset()
    # Lightning counts one less where it resumed from such a moment.
    trainer.fit_loop.epoch_progress.current.ready = trainer.current_epoch + 1


def every_random_state() -> list[dict[str, Any]]:
    """The random states of all processes, by rank; all ranks call it."""
    _, world_size = rank_and_world_size()
    states = [random_state()]
    if world_size > 1:
        states = [{} for _ in range(world_size)]
        torch.distributed.all_gather_object(states, random_state())
    return states


def random_state() -> dict[str, Any]:
    """The states of the random number generators of Python, NumPy, torch and this process's GPU.

    A process draws on its own GPU alone. One that has not used its GPU so far has drawn nothing there; asking for the
    state would begin to use it.
    """
    kind, keys, *rest = np.random.get_state(legacy=True)
    return {
        "python": random.getstate(),
        "numpy": (str(kind), torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest),
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
    }


def restore_random_state(state: dict[str, Any]) -> None:
    """Sets the generators to a state that `random_state` gave; that of the GPU only where one is in use now, too."""
    random.setstate(state["python"])
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(state["cuda"])
