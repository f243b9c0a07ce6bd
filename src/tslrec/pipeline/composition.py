"""Turns Hydra's composed configuration into dataclasses, and composes the configurations of related runs.

Runs are composed from the command line of another one with some choices changed: a method to compare with, the
backbone of another `source_model`, the fallback of a language model, and the members of a run. Each is the run that a
person would start with that choice, so its artifacts are shared.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tslrec.config import Config
from tslrec.pipeline.choices import CONFIG_NAME, config_folder
from tslrec.pipeline.explained import explained
from tslrec.pipeline.known_keys import unknown_key
from tslrec.pipeline.overrides import readable, refusal, word_of
from tslrec.system.errors import UserError
from tslrec.system.shown_values import shown


def register_schema() -> None:
    """Registers the dataclasses as the schema that `configs/train.yaml` starts from."""
    ConfigStore.instance().store(name="schema", node=Config)


def to_config(composed: DictConfig, words: Sequence[str] = ()) -> Config:
    """Plain dataclasses, with every interpolation resolved.

    Args:
        composed: what Hydra composed.
        words: the overrides, for messages.

    Raises:
        UserError: if a key does not exist or was removed, has no value, or is an empty text.
    """
    check_keys(composed, words)
    with composition_errors(words):
        config = cast(Config, OmegaConf.to_object(composed))
    check_texts(config)
    return config


def check_keys(node: DictConfig, words: Sequence[str], prefix: str = "") -> None:
    """Refuses keys that no dataclass has: `+KEY=VALUE` adds them, and they would be dropped without a word.

    Below a `_target_` they stay: `tslrec.pipeline.check` compares them with its parameters.

    Raises:
        UserError: naming the first such key, or the first one that `~KEY` removed.
    """
    if node._is_none() or node._is_missing() or node._is_interpolation():
        return
    kind, present = OmegaConf.get_type(node), [str(key) for key in node]
    if is_dataclass(kind):
        known = [each.name for each in fields(kind)]
        for name in present:
            if name not in known:
                raise refusal(f"{word_of(prefix + name, words)}: {unknown_key(prefix + name)}")
        for name in known:
            if name not in present:
                raise refusal(f"~{prefix}{name}: a setting cannot be removed; give it a value, {prefix}{name}=…")
    for name in present:
        child = node._get_node(name)
        if isinstance(child, DictConfig):
            check_keys(child, words, f"{prefix}{name}.")


def check_texts(section: Any, prefix: str = "") -> None:
    """Refuses empty texts, such as `artifacts=`.

    Raises:
        UserError: naming the first one.
    """
    for each in fields(section):
        key, value = prefix + each.name, getattr(section, each.name)
        if is_dataclass(value):
            check_texts(value, f"{key}.")
        named = value.get("name") if isinstance(value, Mapping) else value
        for text in named if isinstance(named, list) else [named]:
            if isinstance(text, str) and not text.strip():
                where = f"{key}.name" if isinstance(value, Mapping) else key
                raise refusal(f"{where}=: the value is empty; write {where}=VALUE, or leave it out")


@contextmanager
def composition_errors(words: Sequence[str]) -> Iterator[None]:
    """While active, an error of Hydra or OmegaConf becomes one line for the person who wrote the words.

    Raises:
        UserError: see `tslrec.pipeline.explained`.
    """
    try:
        yield
    except (HydraException, OmegaConfBaseException) as error:
        raise explained(error, words) from error
    except (TypeError, ValueError, AttributeError, AssertionError, OSError) as error:
        # Hydra's own, of values whose kind it does not expect, such as a number in the place of a choice.
        if not raised_by_hydra(error):
            raise
        written = shown(" ".join(words))
        raise UserError(
            f"{written}: cannot be composed; `--help` lists choices and settings, correct the values"
        ) from error


def raised_by_hydra(error: BaseException) -> bool:
    """Whether the innermost call of this project or of Hydra that the error came through is Hydra's."""
    innermost = ""
    for frame, _ in traceback.walk_tb(error.__traceback__):
        module = str(frame.f_globals.get("__name__", ""))
        if module.partition(".")[0] in ("hydra", "tslrec"):
            innermost = module
    return innermost.startswith("hydra.")


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
        UserError: if the folder `configs` cannot be found, or they do not compose.
    """
    words = readable(overrides)
    with composing(), composition_errors(words):
        return to_config(compose(CONFIG_NAME, overrides=words), words)


class Composer:
    """Composes the configuration of a command line, with some choices changed. Needs an initialised Hydra.

    Args:
        overrides: the words of the command line, `KEY=VALUE`.
        config_name: the file of `configs` that the configuration starts from.

    Raises:
        UserError: if a word cannot be read.
    """

    def __init__(self, overrides: Sequence[str], config_name: str = CONFIG_NAME) -> None:
        self.overrides = readable(overrides)
        self.config_name = config_name

    def with_choices(self, choices: Mapping[str, Any], drop: Sequence[str] = ()) -> Config:
        """The configuration with other choices.

        Args:
            choices: values by key, such as `{"method": "ci"}`. Each replaces the overrides of that key and of every
                key inside it.
            drop: further keys whose overrides are left out, such as the settings of a fusion that is not used.

        Raises:
            UserError: if they do not compose.
        """
        return self.changed(choices, drop).config()

    def changed(self, choices: Mapping[str, Any], drop: Sequence[str] = ()) -> Composer:
        """Composes the configuration of the command line with other choices; the arguments are `with_choices`'s.

        Raises:
            UserError: if a choice cannot be read.
        """
        replaced = (*(key.lstrip("+") for key in choices), *drop)
        kept = [text for text in self.overrides if not any(sets_key(text, key) for key in replaced)]
        added = [f"{key}={'null' if value is None else value}" for key, value in choices.items()]
        return Composer([*kept, *added], self.config_name)

    def config(self) -> Config:
        """The configuration of the command line.

        Raises:
            UserError: if it does not compose.
        """
        with composition_errors(self.overrides):
            return to_config(compose(self.config_name, overrides=self.overrides), self.overrides)


def sets_key(override: str, key: str) -> bool:
    """Whether a word of the command line sets `key`, or a key inside it."""
    target = re.split(r"[=@]", override.lstrip("+~"), maxsplit=1)[0]
    return target == key or target.startswith((key + ".", key + "/"))
