"""Every `configs/model/x.yaml` and `configs/fusion/x.yaml` lists all numbers of its class, at the class's defaults.

So a reader sees in one file all that can be set, and code that builds the class without a configuration gets the same.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.utils import get_class

from support.checkout import CHECKOUT
from tslrec.pipeline.check_method import GIVEN_TO_FUSION
from tslrec.settings.choices import MODEL_KEYS
from tslrec.stages.registry import arrays_made

MODELS = sorted((CHECKOUT / "configs" / "model").glob("*.yaml"))
FUSIONS = sorted((CHECKOUT / "configs" / "fusion").glob("*.yaml"))


def defaults_of(section: dict[str, Any]) -> dict[str, Any]:
    """Names and defaults of the keyword-only parameters of a section's class, without those that stages give."""
    parameters = inspect.signature(get_class(section["_target_"])).parameters.values()
    return {
        each.name: each.default
        for each in parameters
        if each.kind is each.KEYWORD_ONLY and each.name not in arrays_made() and each.name not in GIVEN_TO_FUSION
    }


def positional(section: dict[str, Any]) -> list[str]:
    """Names of the parameters of a section's class that Python passes by position."""
    parameters = inspect.signature(get_class(section["_target_"])).parameters.values()
    return [each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]


def test_there_are_choices() -> None:
    assert MODELS
    assert FUSIONS


@pytest.mark.parametrize("path", MODELS, ids=lambda path: path.stem)
def test_a_model_file_lists_every_parameter_at_its_default(path: Path) -> None:
    section = yaml.safe_load(path.read_text())
    defaults = defaults_of(section)
    assert positional(section) == ["item_embedding", "num_users", "max_len"]
    assert section.keys() == MODEL_KEYS | {"_target_"} | defaults.keys()
    assert {name: section[name] for name in defaults} == defaults


@pytest.mark.parametrize("path", FUSIONS, ids=lambda path: path.stem)
def test_a_fusion_file_lists_every_parameter_at_its_default(path: Path) -> None:
    section = yaml.safe_load(path.read_text())
    defaults = defaults_of(section)
    assert positional(section) == ["num_items", "hidden_size"]
    assert section.keys() == {"name", "_target_"} | defaults.keys()
    assert {name: section[name] for name in defaults} == defaults


@pytest.mark.parametrize("path", [*MODELS, *FUSIONS], ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_file_is_named_as_the_choice_that_it_holds(path: Path) -> None:
    assert yaml.safe_load(path.read_text())["name"] == path.stem
