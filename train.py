"""Trains a sequential recommender by a method (base, ci, tslrec): `python train.py experiment=quickstart`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from tslrec.system.exits import run_program
from tslrec.system.threads import limit_spinning

if TYPE_CHECKING:
    from omegaconf import DictConfig

# Here, because torch's OpenMP library reads the environment once, when it is loaded.
limit_spinning()


def main() -> None:
    """Composes the configuration that the command line asks for, and runs it."""
    # Inside, so that one line says what to install where Hydra is missing.
    import hydra

    from tslrec.pipeline.composition import composition_errors, register_schema
    from tslrec.pipeline.overrides import arranged

    register_schema()
    written, words = list(sys.argv), arranged(sys.argv[1:])

    def run_composed(composed: DictConfig) -> None:
        # The run records the command that the person wrote.
        sys.argv[:] = written
        # Errors end the program here, because Hydra would print a line of its own before it passes them on.
        run_program(lambda: train(composed))

    sys.argv[1:] = words
    with composition_errors(words):
        hydra.main(version_base="1.3", config_path="configs", config_name="train")(run_composed)()


def train(composed: DictConfig) -> None:
    """Trains the configured methods."""
    # Heavy packages are imported inside, so that --help, --cfg and a misspelt key answer at once.
    from hydra.core.hydra_config import HydraConfig

    from tslrec.cli.train import run

    hydra = HydraConfig.get()
    found_in = [word for word in hydra.overrides.hydra if word.startswith("hydra.searchpath=")]
    run(composed, [*found_in, *hydra.overrides.task], str(hydra.job.config_name))


if __name__ == "__main__":
    run_program(main)
