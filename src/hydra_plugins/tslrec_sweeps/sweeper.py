"""`python train.py -m …`: runs every combination of the swept values; a failing run does not stop the others.

Hydra imports this folder at every start, even for a single run; so heavy packages are imported inside functions.
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

from tslrec.pipeline.sweeps.cell import CELL, SWEEPER
from tslrec.pipeline.sweeps.record import Cell, Sweep


class CellSweeper(BasicSweeper):
    """Hydra's basic sweeper with a record of all runs and their states.

    The local launchers (basic, joblib) call `run_cell` instead of the program's own function.
    """

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Derives the sweep's folder from its runs, and passes it to the launcher and to every run."""
        parser = OverridesParser.create(config_loader=hydra_context.config_loader)
        words = [*self._parse_config(), *as_written(config.hydra.overrides.task)]
        (cells,) = self.split_arguments(parser.parse_overrides(words), max_batch_size=None)
        folder, program = Path(config.hydra.sweep.dir).absolute(), Path(sys.argv[0]).absolute()
        self.record = Sweep.of(folder, program, cells, config_dir_options(config))
        with read_write(config), open_dict(config):
            config.hydra.sweep.dir = str(self.record.folder)
            config.hydra.overrides.hydra.append(f"hydra.sweep.dir='{self.record.folder}'")
        super().setup(hydra_context=hydra_context, task_function=run_cell, config=config)

    def sweep(self, arguments: list[str]) -> None:
        """Runs every combination that is not done yet, and prints the table of all.

        Raises:
            HydraException: before any run starts, if a combination does not compose.
            UserError: at the end, if some runs did not finish.
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
        from tslrec.reports.sweep_view import print_end

        print_end(self.record)

    def not_finished(self) -> list[list[str]]:
        """The command lines of the unfinished runs.

        All combinations are composed here, so that a typo is found before the first run starts.
        """
        from tslrec.pipeline.composition import to_config
        from tslrec.pipeline.sweeps.fingerprint import is_finished

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
    """Runs one combination as a separate process: even if the out-of-memory killer ends it, the others continue."""
    hydra = HydraConfig.get()
    sweep = Sweep.read(Path(hydra.sweep.dir))
    number = sweep.number_of(as_written(hydra.overrides.task))
    alone = hydra.runtime.choices["hydra/launcher"] == "basic"
    environment = {**os.environ, CELL: str(sweep.record(number))}
    if alone:
        ended = run(sweep.command(number), environment, None)
    else:
        with sweep.log(number).open("w") as log:
            ended = run(sweep.command(number), environment, log.fileno())
    tell(sweep.status(), number, ended, None if alone else sweep.log(number))


def config_dir_options(config: DictConfig) -> list[str]:
    """`--config-dir FOLDER` as the sweep was given it, for the command line of each run; empty if it was not."""
    sources = config.hydra.runtime.config_sources
    return [word for each in sources if each.provider == "command-line" for word in ("--config-dir", each.path)]


def as_written(words: Any) -> list[str]:
    """The words of a command line; interpolations stay unresolved, since each run resolves its own."""
    plain = OmegaConf.to_container(words, resolve=False)
    assert isinstance(plain, list)
    return plain


def run(command: Sequence[str], environment: dict[str, str], output: int | None) -> int:
    """Runs a command and returns its exit code; after Ctrl-C, which reaches both, it waits for the command to end.

    Args:
        command: the command line.
        environment: the environment variables.
        output: file descriptor for its output; None: that of this process.
    """
    with subprocess.Popen(command, env=environment, stdout=output, stderr=output) as process:
        return process.wait()


def tell(cells: Sequence[Cell], number: int, ended: int, log: Path | None) -> None:
    """Prints a line about a run that has ended.

    Args:
        cells: all runs of the sweep in their current state.
        number: the run's number.
        ended: its exit code.
        log: the file with its output, named in the line if the run is not done; None: its output was not redirected.
    """
    from tslrec.reports.sweep_view import progress

    line = progress(cells, cells[number], f"exit code {ended}")
    where = "" if log is None or cells[number].is_done else f"; {log}"
    print(line + where, flush=True)
