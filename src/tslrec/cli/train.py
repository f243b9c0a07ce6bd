"""Runs the configured methods and prints the closing table; `train.py` calls it."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from omegaconf import DictConfig

from tslrec.pipeline.artifacts import ArtifactStore
from tslrec.pipeline.check_values import check_values
from tslrec.pipeline.choices import CONFIG_NAME
from tslrec.pipeline.composition import Composer, to_config
from tslrec.pipeline.results import record, run_folder
from tslrec.pipeline.run import run_methods
from tslrec.pipeline.sweeps.cell import CellRecorder
from tslrec.pipeline.sweeps.fingerprint import fingerprint
from tslrec.pipeline.unfinished import WorkRecord
from tslrec.reports.closing_table import print_closing_table
from tslrec.system import logs, processes
from tslrec.system.consoles import plain_console
from tslrec.system.disk_errors import disk_fault
from tslrec.system.errors import UserError
from tslrec.system.exits import exit_with
from tslrec.system.memory import keep_freed_memory, use_large_pages


def run(composed: DictConfig, overrides: list[str], config_name: str = CONFIG_NAME) -> None:
    """Runs the configured methods; an error that the user can fix ends in one line and exit code 2.

    Every process of a job runs this; only rank 0 writes and prints.

    Args:
        composed: the configuration that Hydra composed.
        overrides: the overrides of the command line.
        config_name: the file of `configs` that it starts from.
    """
    keep_freed_memory()
    use_large_pages()
    logs.install()
    job, first = processes.join_job(), processes.is_rank_zero()
    if not first:
        processes.mute_rank()
    try:
        with CellRecorder(first) as cell:
            config = to_config(composed, overrides)
            check_values(config)
            cell.fingerprint = fingerprint(config)
            composer, root = Composer(overrides, config_name), Path(config.artifacts)
            with WorkRecord(root, job, first, asdict(config)) as work:
                results = run_methods(config, composer, ArtifactStore(root, job, first, work.need))
                if results:
                    cell.result = run_folder(config, results)
                # Within, so that the run's result names what it is made of before its record is gone.
                folder = record(config, results) if results and first else root
        # Behind it, since the run is complete whatever becomes of what is printed.
        if results and first:
            console = plain_console()
            print_closing_table(results, folder, console)
            if config.examples and results[-1].stages:
                from tslrec.reports.examples import print_examples

                print_examples(folder, config.examples, console)
    except Exception as error:
        if not first:
            processes.wait_for_rank_zero()
        known = error if isinstance(error, UserError) else disk_fault(error)
        if known is None:
            raise
        exit_with(known)
