"""What a run needs to know of a configuration before it starts: its language model, and the run of its stage 1."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tslrec.config import Config
from tslrec.pipeline.composition import Composer
from tslrec.stages.method_stages import runs_llm, stages_of
from tslrec.system.errors import UserError

if TYPE_CHECKING:
    from tslrec.llm.weights_source import ResolvedSource


def resolve_llm(config: Config, planned: list[Config]) -> ResolvedSource | None:
    """Finds the weights of the language model.

    Args:
        config: the configured run, whose language model all methods share.
        planned: the configurations of all methods to run.

    Returns:
        None if no stage needs them, or if they cannot be had and `fallback_llm` names another language model.

    Raises:
        UserError: if they cannot be had, and there is no fallback.
    """
    if not any(runs_llm(each) for each in planned):
        return None
    from tslrec.llm.weights_source import resolve

    try:
        return resolve(config.llm, Path(config.cache))
    except UserError:
        if config.fallback_llm is None or config.fallback_llm == config.llm.name:
            raise
        return None


def source_config(config: Config, composer: Composer) -> Config:
    """The configuration of stage 1: the run's own, or that of the base run of another `source_model`.

    A method whose stages all belong to the source trains no second backbone, so it ignores `source_model`.
    """
    one_backbone = all(stage.settings_of == "source" for stage in stages_of(config))
    if config.source_model is None or config.source_model == config.model["name"] or one_backbone:
        return config
    choices = {"model": config.source_model, "method": "base", "source_model": None}
    return composer.with_choices(choices, drop=("fusion", "compare"))
