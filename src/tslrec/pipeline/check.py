"""Whether a configuration can work: checked within seconds, before any data are read or anything is computed.

Each file has one part: `check_values` the bounds of all values, `check_method` the stages and the fusion,
`check_machine` and `check_trainer` what the machine must have, `check_models` whether the modules can be built,
`check_language_model` whether the language model fits, `check_pod` whether POD's fits, `titles` whether there is a file
of titles, and `check_catalogue`, which needs the data, the rest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tslrec.config import Config
from tslrec.llm.encoder_decoder.source import shape_of
from tslrec.pipeline.check_catalogue import check_catalogue
from tslrec.pipeline.check_machine import check_llm, check_machine
from tslrec.pipeline.check_method import check_fusion, check_list_metrics, check_stages
from tslrec.pipeline.check_models import GIVEN_TO_MODEL, check_models
from tslrec.pipeline.check_pod import check_pod
from tslrec.pipeline.check_values import check_metrics, check_values
from tslrec.pipeline.titles import check_titles
from tslrec.settings.choices import MODEL_KEYS
from tslrec.stages.method_stages import runs_llm, stages_of
from tslrec.system.targets import check_target

if TYPE_CHECKING:
    from tslrec.llm.weights_source import ResolvedSource

__all__ = [
    "check",
    "check_catalogue",
    "check_data",
    "check_llm",
    "check_metrics",
    "check_stages",
    "check_target",
    "check_values",
]


def check(config: Config, llm: ResolvedSource | None = None) -> None:
    """Checks the configuration of one run.

    Args:
        config: the configuration.
        llm: where the weights of its language model are; None: they are not looked at.

    Raises:
        UserError: naming the key that cannot work, and what to set it to.
    """
    check_stages(config)
    check_data(config)
    check_titles(config)
    check_list_metrics(config)
    sections = {section for stage in stages_of(config) for section in stage.sections}
    if "model" in sections:
        check_target("model", config.model, given=GIVEN_TO_MODEL, own=MODEL_KEYS)
    if "fusion" in sections:
        check_fusion(config)
    if "t5" in sections:
        shape_of(config.t5)
    check_machine(config)
    check_llm(config)
    if "model" in sections:
        check_models(config)
    check_pod(config)
    if llm is not None and runs_llm(config):
        from tslrec.pipeline.check_language_model import check_language_model

        check_language_model(config, llm)


def check_data(config: Config) -> None:
    """Checks all values and the reader of the data set, which is enough for a program that only reads data.

    Free of heavy imports.

    Raises:
        UserError: naming the key and what is wrong with it.
    """
    check_values(config)
    check_target("data.reader", config.data.reader, given={"path"})
