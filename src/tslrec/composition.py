"""From Hydra's composed configuration to plain dataclasses, and from one run to its neighbours.

A method that is compared, the backbone of another source model, and a language model's fallback are composed from
the same command line with one choice changed: each is exactly the run that a person would have started with that
choice, so the artifacts are shared.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from tslrec.choices import CONFIG_NAME, config_folder
from tslrec.config import Config


def register_schema() -> None:
    """Makes the dataclasses the schema that `configs/train.yaml` starts from."""
    ConfigStore.instance().store(name="schema", node=Config)


def to_config(composed: DictConfig) -> Config:
    """Plain dataclasses, every interpolation resolved."""
    return cast(Config, OmegaConf.to_object(composed))


def compose_overrides(overrides: Sequence[str]) -> Config:
    """The configuration that `train.py` would have from the same command line, for programs that are not Hydra's own.

    Raises:
        UserError: if the configurations cannot be found.
        HydraException: if they do not compose.
    """
    register_schema()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return to_config(compose(CONFIG_NAME, overrides=list(overrides)))


class Composer:
    """Composes the configuration of the running command line, with some choices changed."""

    def __init__(self, overrides: Sequence[str]) -> None:
        self.overrides = list(overrides)

    def with_choices(self, choices: Mapping[str, Any], drop: Sequence[str] = ()) -> Config:
        """The configuration with other choices.

        Args:
            choices: by key, such as `{"method": "ci"}`; each replaces what the command line said of the key itself
                and of anything inside it.
            drop: further keys whose overrides do not apply, such as the numbers of a fusion that is not used.
        """
        replaced = (*choices, *drop)
        kept = [text for text in self.overrides if not any(concerns(text, key) for key in replaced)]
        added = [f"{key}={'null' if value is None else value}" for key, value in choices.items()]
        return to_config(compose(CONFIG_NAME, overrides=[*kept, *added]))


def concerns(override: str, key: str) -> bool:
    """Whether a command-line override sets `key`, or something inside it."""
    target = re.split(r"[=@]", override.lstrip("+~"), maxsplit=1)[0]
    return target == key or target.startswith((key + ".", key + "/"))
