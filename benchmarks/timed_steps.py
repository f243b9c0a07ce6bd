"""Times training steps alone and beside busy processes, under the thread settings of this process's environment.

`benchmarks/shared_cores.py` starts it once for each setting and round, with its own arguments. Prints one JSON line.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import torch

import shared_cores
from cases import SHORT, Case
from growth import market
from measure import print_record
from shared_cores import ALONE, BESIDE, parse
from side_tslrec import EVAL_BATCH_SIZE, SEED, load_file, model_section
from tslrec.data.datamodule import SequenceDataModule
from tslrec.data.interactions import Interactions
from tslrec.models.backbones.base import CausalBackbone
from tslrec.models.item_embedding import IdEmbedding
from tslrec.settings.trainer import TrainerConfig
from tslrec.stages.backbone import BackboneModule
from tslrec.stages.building import build_backbone
from tslrec.system.memory import keep_freed_memory, use_large_pages
from tslrec.system.meter import Meter
from tslrec.training.checkpoints import Checkpoints
from tslrec.training.trainer import StageTrainers

CASES = {
    case.name: case
    for case in (
        # The backbone's step in `make run`.
        Case("small", "sasrec", "synthetic", 64, SHORT, None, batch_size=256, learning_rate=2e-3),
        Case("large", "sasrec", "beauty", 64, SHORT, None),
        # Caser's step is computed by teams of threads (see `tslrec.training.thread_teams`).
        Case("teams", "caser", "synthetic", 64, SHORT, None, batch_size=256, learning_rate=2e-3),
    )
}
assert tuple(CASES) == shared_cores.CASES
BEAUTY_USERS, BEAUTY_ITEMS = 22_363, 12_101
"""The size of Beauty, for a generated market where no file is given."""
WARM_UP_STEPS = 3
BUSY_LOOP = """
import os
print("started", flush=True)
parent = os.getppid()
while os.getppid() == parent:
    for _ in range(1_000_000):
        pass
"""
"""Keeps one core busy until it is killed or its parent process ends."""


class StepTimer(lightning.Callback):
    """Times the steps after `WARM_UP_STEPS` and then ends the training.

    Args:
        steps: number of steps to time.
        seconds: the training ends after this time even if fewer steps were timed, but not before the first.

    Attributes:
        durations: seconds of each timed step: the batch, forward, backward and update, and Lightning's own work.
    """

    def __init__(self, steps: int, seconds: float) -> None:
        self.steps = steps
        self.seconds = seconds
        self.durations: list[float] = []
        self.warm_up_steps_left = WARM_UP_STEPS

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        self.began = time.perf_counter()

    def on_train_epoch_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        # The work between two epochs is not part of a step.
        self.step_began = time.perf_counter()

    def on_train_batch_end(self, trainer: lightning.Trainer, *others: Any) -> None:
        now = time.perf_counter()
        if self.warm_up_steps_left:
            self.warm_up_steps_left -= 1
        else:
            self.durations.append(now - self.step_began)
            trainer.should_stop = len(self.durations) >= self.steps or now - self.began > self.seconds
        self.step_began = now


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """Trains each case alone and then beside busy processes.

    Returns:
        `milliseconds`: by case and then by `alone` or `beside`, the median duration of a step; `steps`: in the same
        form, the number of steps that were timed; `threads`: the number of torch's threads; `torch`: its version.
    """
    milliseconds: dict[str, dict[str, float]] = {}
    steps: dict[str, dict[str, int]] = {}
    for name in arguments.cases:
        case = CASES[name]
        if arguments.quick:
            case = replace(case, hidden_size=16, max_len=8, batch_size=32)
        timed = time_case(case, load(case, arguments), arguments)
        milliseconds[name] = {way: round(1000 * statistics.median(durations), 3) for way, durations in timed.items()}
        steps[name] = {way: len(durations) for way, durations in timed.items()}
    return {
        "milliseconds": milliseconds,
        "steps": steps,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }


def load(case: Case, arguments: argparse.Namespace) -> Interactions:
    """The data of a case; without a file of Beauty, a generated market of its size."""
    if arguments.quick:
        return market(1, users=60, items=40)
    if case.data == "beauty" and arguments.data is None:
        return market(1, users=BEAUTY_USERS, items=BEAUTY_ITEMS)
    # `data=synthetic` is generated and ignores the path.
    return load_file(case.data, arguments.data or Path())


def time_case(case: Case, interactions: Interactions, arguments: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of the timed steps, `alone` and `beside` busy processes."""
    lightning.seed_everything(SEED, verbose=False)
    backbone = build_backbone(
        model_section(case),
        IdEmbedding(interactions.num_items, case.hidden_size),
        num_users=interactions.num_users,
        max_len=case.max_len,
    )
    module = BackboneModule(backbone, learning_rate=case.learning_rate, weight_decay=0.0)
    timed = {}
    for way, busy in ((ALONE, 0), (BESIDE, arguments.busy)):
        data = SequenceDataModule(
            interactions,
            max_len=case.max_len,
            batch_size=case.batch_size,
            eval_batch_size=EVAL_BATCH_SIZE,
            all_positions=backbone.causal,
            fixed_window=backbone.fixed_window,
            packed=isinstance(backbone, CausalBackbone) and backbone.packs,
            seed=SEED,
        )
        timer = StepTimer(arguments.steps, arguments.seconds)
        with tempfile.TemporaryDirectory() as folder, busy_processes(busy):
            make_trainer = StageTrainers(
                TrainerConfig(name="cpu"),
                "bench",
                Path(folder),
                checkpoints=Checkpoints(Path(folder) / "checkpoints"),
                meter=Meter(),
            )
            # So many epochs that the timer ends the training.
            trainer = make_trainer(max_epochs=1_000_000, callbacks=[timer])
            trainer.fit(module, train_dataloaders=data.train_dataloader())
        timed[way] = timer.durations
    return timed


@contextmanager
def busy_processes(count: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    """While the context is open, this many processes keep a core busy each."""
    processes: list[subprocess.Popen[bytes]] = []
    with ExitStack() as stack:
        for _ in range(count):
            process = stack.enter_context(subprocess.Popen([sys.executable, "-c", BUSY_LOOP], stdout=subprocess.PIPE))
            stack.callback(process.kill)
            processes.append(process)
        for process in processes:
            assert process.stdout is not None
            # Until its loop runs.
            process.stdout.readline()
        yield processes


if __name__ == "__main__":
    # As a run of `train.py` does.
    keep_freed_memory()
    use_large_pages()
    print_record(measure(parse(sys.argv[1:])))
