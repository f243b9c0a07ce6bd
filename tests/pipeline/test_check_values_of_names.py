"""Names of which folders are made are names of a single folder, or refused in one line."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir

from support.checkout import CHECKOUT
from tslrec.config import Config
from tslrec.pipeline.check_values import check_values
from tslrec.pipeline.composition import register_schema, to_config
from tslrec.system.errors import UserError

SECTIONS = ("data", "model", "method", "llm", "t5", "fusion")


@pytest.fixture(scope="module")
def config() -> Config:
    register_schema()
    with initialize_config_dir(str(CHECKOUT / "configs"), version_base="1.3"):
        return to_config(compose("train", overrides=["llm=tiny"]))


def named(config: Config, section: str, name: Any) -> Config:
    """The configuration with another name in one section."""
    values = getattr(config, section)
    changed: Any = {**values, "name": name} if isinstance(values, dict) else replace(values, name=name)
    return replace(config, **{section: changed})


def refusal(config: Config) -> str:
    with pytest.raises(UserError) as refused:
        check_values(config)
    line = str(refused.value)
    assert "\n" not in line
    assert len(line) <= 300
    return line


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("shop/2024", "=shop/2024: folders are named by it; leave out /, \\ and control characters"),
        ("../../x", "=../../x: folders are named by it"),
        ("a\\b", "=a\\b: folders are named by it"),
        ("a\nb", "='a\\nb': folders are named by it"),
        ("..", "='..': is no name that a folder can have"),
        ("", "='': is no name that a folder can have"),
        (None, "=null: must be a name; folders are named by it"),
    ],
)
def test_what_names_no_single_folder_is_refused(config: Config, section: str, name: Any, message: str) -> None:
    assert refusal(named(config, section, name)).startswith(f"{section}.name{message}")


@pytest.mark.parametrize("section", SECTIONS)
@pytest.mark.parametrize("name", ["shop.2024", "Größe 2", "..x", "-"])
def test_other_names_are_accepted(config: Config, section: str, name: str, tmp_path: Path) -> None:
    check_values(named(config, section, name))
    (tmp_path / name).mkdir()


def test_a_preset_is_a_name_and_a_backbone_has_one(config: Config) -> None:
    assert refusal(replace(config, preset="a/b")).startswith("preset=a/b: ")
    nameless = {key: value for key, value in config.model.items() if key != "name"}
    assert refusal(replace(config, model=nameless)).startswith("model.name=null: ")


def test_names_that_are_too_long_for_a_folder_are_refused(config: Config) -> None:
    line = refusal(named(config, "data", "ö" * 120))
    assert line.startswith("data.name=ö")
    assert "shorten it by " in line
    excess = int(line.rsplit(" ", 1)[1])
    check_values(named(config, "data", "x" * (240 - excess)))
    assert refusal(named(config, "data", "x" * (241 - excess))).endswith("shorten it by 1")
