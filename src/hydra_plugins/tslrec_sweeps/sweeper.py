"""`python train.py -m …`: runs every combination of the swept values; a failing run does not stop the others.

Hydra imports this folder at every start, even for a single run; so heavy packages are imported inside functions.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from tslrec.pipeline.choices import CONFIG_NAME
from tslrec.pipeline.overrides import quoted
from tslrec.pipeline.sweeps.cell import CELL, SWEEPER
from tslrec.pipeline.sweeps.record import Cell, Sweep
from tslrec.pipeline.sweeps.stopping import SweepStop, ignore_signals, run_until_stopped, stopped
from tslrec.system.interruptions import Interruption

LOCAL = ("basic", "joblib")
"""Hydra's launchers whose runs are processes on this machine."""


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
        self.record = Sweep.of(folder, program, cells, options_of(config, program))
        # A folder's name is no interpolation.
        name = str(self.record.folder).replace("${", "\\${")
        with read_write(config), open_dict(config):
            config.hydra.sweep.dir = name
            config.hydra.overrides.hydra.append(f"hydra.sweep.dir={quoted(name)}")
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
            self.launch(to_run)
        from tslrec.reports.sweep_view import print_end

        print_end(self.record)

    def launch(self, to_run: list[list[str]]) -> None:
        """Starts the runs on this machine, or hands them to SLURM.

        Raises:
            StoppedError: if a signal stopped the runs on this machine.
        """
        assert self.launcher is not None
        assert self.config is not None
        if self.config.hydra.runtime.choices["hydra/launcher"] not in LOCAL:
            self.launcher.launch(to_run, initial_job_idx=0)
            return
        stop = SweepStop(self.record.folder, os.getpid())
        with stop.handlers():
            try:
                self.launcher.launch(to_run, initial_job_idx=0)
            except Interruption:
                # The local launcher's way to start no further run; the line about it is below.
                if stop.request.number is None:
                    raise
        if stop.request.number is not None:
            raise stopped(self.record, stop.request.number)

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
            if not is_finished(cell, to_config(composed, words)):
                left.append(words)
        return left


def run_cell(config: DictConfig) -> None:
    """Runs one combination as a separate process: even if the out-of-memory killer ends it, the others continue."""
    hydra = HydraConfig.get()
    sweep = Sweep.read(Path(hydra.sweep.dir))
    number = sweep.number_of(as_written(hydra.overrides.task))
    alone = hydra.runtime.choices["hydra/launcher"] == "basic"
    environment = {**os.environ, CELL: str(sweep.record(number))}
    stop = SweepStop(sweep.folder, int(os.environ[SWEEPER]))
    if alone:
        ended = run_until_stopped(sweep.command(number), environment, None, stop)
    else:
        ignore_signals()
        if stop.read() is not None:
            return
        with sweep.log(number).open("w") as log:
            ended = run_until_stopped(sweep.command(number), environment, log.fileno(), stop)
    if alone and (asked := stop.read()) is not None:
        raise Interruption(asked.signal)
    tell(sweep.status(), number, ended, None if alone else sweep.log(number))


def options_of(config: DictConfig, program: Path) -> list[str]:
    """Where a sweep's configurations are, for the command line of each run; folders are absolute.

    Args:
        config: the sweep's, with the section `hydra`.
        program: the program that each run starts; its own configurations are in `configs` beside it.

    Returns:
        `--config-path`, `--config-name`, `--config-dir` and `hydra.searchpath`, those that the sweep was given.
    """
    hydra = config.hydra
    words = []
    for each in hydra.runtime.config_sources:
        if each.provider == "main" and Path(each.path) != program.parent / "configs":
            words += ["--config-path", each.path]
        if each.provider == "command-line":
            words += ["--config-dir", each.path]
    if hydra.job.config_name != CONFIG_NAME:
        words += ["--config-name", str(hydra.job.config_name)]
    if any(word.startswith("hydra.searchpath=") for word in as_written(hydra.overrides.hydra)):
        places = ",".join(quoted(absolute_place(str(place))) for place in hydra.searchpath)
        words.append(f"hydra.searchpath=[{places}]")
    return words


def absolute_place(place: str) -> str:
    """An entry of `hydra.searchpath`: a folder with its absolute path, a package (`pkg://`) as it is."""
    scheme, sign, path = place.rpartition("://")
    return place if sign and scheme != "file" else f"file://{Path(path).absolute()}"


def as_written(words: Any) -> list[str]:
    """The words of a command line; interpolations stay unresolved, since each run resolves its own."""
    plain = OmegaConf.to_container(words, resolve=False)
    assert isinstance(plain, list)
    return plain


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
