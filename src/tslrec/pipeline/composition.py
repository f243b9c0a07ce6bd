"""Turns Hydra's composed configuration into dataclasses, and composes the configurations of related runs.

Three runs are composed from the command line of another one with one choice changed: a method to compare with, the
backbone of another `source_model`, and the fallback of a language model. Each is the run that a person would start
with that choice, so its artifacts are shared.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from tslrec.config import Config
from tslrec.pipeline.choices import CONFIG_NAME, config_folder


def register_schema() -> None:
    """Registers the dataclasses as the schema that `configs/train.yaml` starts from."""
    ConfigStore.instance().store(name="schema", node=Config)


def to_config(composed: DictConfig) -> Config:
    """Plain dataclasses, with every interpolation resolved."""
    return cast(Config, OmegaConf.to_object(composed))


@contextmanager
def composing() -> Iterator[None]:
    """While active, configurations can be composed outside of a `hydra.main` program.

    Raises:
        UserError: if the folder `configs` cannot be found.
    """
    register_schema()
    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        yield


def compose_overrides(overrides: Sequence[str]) -> Config:
    """The configuration that `train.py` would have with the same command line.

    Args:
        overrides: `KEY=VALUE` words.

    Raises:
        UserError: if the folder `configs` cannot be found.
        HydraException: if they do not compose.
    """
    with composing():
        return to_config(compose(CONFIG_NAME, overrides=list(overrides)))


class Composer:
    """Composes the configuration of a command line, with some choices changed. Needs an initialised Hydra.

    Args:
        overrides: the words of the command line, `KEY=VALUE`.
    """

    def __init__(self, overrides: Sequence[str]) -> None:
        self.overrides = list(overrides)

    def with_choices(self, choices: Mapping[str, Any], drop: Sequence[str] = ()) -> Config:
        """The configuration with other choices.

        Args:
            choices: values by key, such as `{"method": "ci"}`. Each replaces the overrides of that key and of every
                key inside it.
            drop: further keys whose overrides are left out, such as the settings of a fusion that is not used.

        Raises:
            HydraException: if they do not compose.
        """
        replaced = (*choices, *drop)
        kept = [text for text in self.overrides if not any(sets_key(text, key) for key in replaced)]
        added = [f"{key}={'null' if value is None else value}" for key, value in choices.items()]
        return to_config(compose(CONFIG_NAME, overrides=[*kept, *added]))


def sets_key(override: str, key: str) -> bool:
    """Whether a word of the command line sets `key`, or a key inside it."""
    target = re.split(r"[=@]", override.lstrip("+~"), maxsplit=1)[0]
    return target == key or target.startswith((key + ".", key + "/"))
