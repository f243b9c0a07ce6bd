"""Trains a sequential recommender by a method (base, ci, tslrec): `python train.py experiment=quickstart`."""

import hydra
from omegaconf import DictConfig

from tslrec.pipeline.composition import register_schema
from tslrec.system.exits import run_program
from tslrec.system.threads import limit_spinning

# Here, because torch's OpenMP library reads the environment once, when it is loaded.
limit_spinning()
register_schema()


@hydra.main(version_base="1.3", config_path="configs", config_name="train")
def main(composed: DictConfig) -> None:
    """Runs the composed configuration."""
    # Heavy packages are imported inside, so that --help, --cfg and a misspelt key answer at once.
    from hydra.core.hydra_config import HydraConfig

    from tslrec.cli.train import run

    run(composed, HydraConfig.get().overrides.task)


if __name__ == "__main__":
    run_program(main)
