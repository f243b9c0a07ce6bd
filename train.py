"""Trains a sequential recommender by a method (base, ci, tslrec): `python train.py experiment=quickstart`."""

import hydra
from omegaconf import DictConfig

from tslrec.composition import register_schema
from tslrec.entry import entry

register_schema()


@hydra.main(version_base="1.3", config_path="configs", config_name="train")
def main(composed: DictConfig) -> None:
    # Heavy packages are imported from here on, so that --help, --cfg and a typo answer at once.
    from hydra.core.hydra_config import HydraConfig

    from tslrec.pipeline import run

    run(composed, HydraConfig.get().overrides.task)


if __name__ == "__main__":
    entry(main)
