"""`python train.py -m …`: every combination, each a run of its own that may fail without the others.

Hydra finds its plugins by importing this folder, also for a single run: so heavy packages are imported in functions.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from tslrec.sweep import Cell, Sweep
from tslrec.trial import CELL, SWEEPER


class TrialSweeper(BasicSweeper):
    """Hydra's own sweeper, on top of a record of which runs there are and what became of them.

    The launchers of this machine (basic, joblib) are given `run_cell` to run instead of the program itself.
    """

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Names the sweep's folder by its runs, for the launcher and every run to know."""
        parser = OverridesParser.create(config_loader=hydra_context.config_loader)
        words = [*self._parse_config(), *as_written(config.hydra.overrides.task)]
        (cells,) = self.split_arguments(parser.parse_overrides(words), max_batch_size=None)
        self.record = Sweep.of(Path(config.hydra.sweep.dir).absolute(), Path(sys.argv[0]).absolute(), cells)
        with read_write(config), open_dict(config):
            config.hydra.sweep.dir = str(self.record.folder)
            config.hydra.overrides.hydra.append(f"hydra.sweep.dir='{self.record.folder}'")
        super().setup(hydra_context=hydra_context, task_function=run_cell, config=config)

    def sweep(self, arguments: list[str]) -> None:
        """Runs every combination, whatever becomes of the others, and prints the table of all.

        Raises:
            HydraException: before anything is run, if one of them does not compose.
            UserError: at the end, if some did not finish.
        """
        assert self.launcher is not None
        to_run = self.not_finished()
        self.record.write()
        if len(to_run) < len(self.record.cells):
            print(
                f"{len(self.record.cells) - len(to_run)} of {len(self.record.cells)} runs are done already", flush=True
            )
        os.environ[SWEEPER] = str(os.getpid())
        if to_run:
            self.launcher.launch(to_run, initial_job_idx=0)
        from tslrec.sweep_view import print_end

        print_end(self.record)

    def not_finished(self) -> list[list[str]]:
        """The command lines of those that are to run; all are composed, so that none of them fails for a typo."""
        from tslrec.composition import to_config
        from tslrec.finished import is_finished

        assert self.hydra_context is not None
        assert self.config is not None
        left = []
        for cell in self.record.status():
            words = list(self.record.cells[cell.number])
            composed = self.hydra_context.config_loader.load_sweep_config(self.config, words)
            with read_write(composed), open_dict(composed):
                del composed["hydra"]
            if not is_finished(cell, to_config(composed)):
                left.append(words)
        return left


def run_cell(config: DictConfig) -> None:
    """Runs one cell as a process of its own: its end, even by the system's memory killer, is no other's."""
    hydra = HydraConfig.get()
    sweep = Sweep.read(Path(hydra.sweep.dir))
    number = sweep.number_of(as_written(hydra.overrides.task))
    alone = hydra.runtime.choices["hydra/launcher"] == "basic"
    environment = {**os.environ, CELL: str(sweep.record(number))}
    command = [sys.executable, str(sweep.program), *sweep.cells[number]]
    if alone:
        ended = run(command, environment, None)
    else:
        with sweep.log(number).open("w") as log:
            ended = run(command, environment, log.fileno())
    tell(sweep.status(), number, ended, None if alone else sweep.log(number))


def as_written(words: Any) -> list[str]:
    """The words of a command line; what they interpolate is each run's own."""
    plain = OmegaConf.to_container(words, resolve=False)
    assert isinstance(plain, list)
    return plain


def run(command: Sequence[str], environment: dict[str, str], output: int | None) -> int:
    """Waits for a process, also where a person interrupts both; returns its exit code."""
    with subprocess.Popen(command, env=environment, stdout=output, stderr=output) as process:
        return process.wait()


def tell(cells: Sequence[Cell], number: int, ended: int, log: Path | None) -> None:
    """A line on what became of a run."""
    from tslrec.sweep_view import progress

    line = progress(cells, cells[number], f"exit code {ended}")
    where = "" if log is None or cells[number].is_done else f"; {log}"
    print(line + where, flush=True)
