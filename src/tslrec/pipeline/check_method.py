"""Whether the stages of a method fit together, and make what its fusion reads."""

from __future__ import annotations

from tslrec.config import Config
from tslrec.evaluation.protocols import LIST_LENGTH, LIST_MARK
from tslrec.stages.declaration import MEMBERS
from tslrec.stages.knowledge_width import check_knowledge_width
from tslrec.stages.method_stages import fusion_inputs, stages_of
from tslrec.stages.registry import INGESTED, arrays_made, generates_lists, makers_of, stage_names
from tslrec.system.errors import UserError
from tslrec.system.targets import check_target

GIVEN_TO_FUSION = frozenset({"num_items", "hidden_size", "knowledge_scaling"})
"""Parameters of every fusion that Python fills in, beside the arrays that stages make."""


def check_stages(config: Config) -> None:
    """Checks that the stages of the method exist, are in order, and follow the stages whose results they read.

    Raises:
        UserError: naming the stage.
    """
    stages, names = config.method.stages, stage_names()
    unknown = [stage for stage in stages if stage not in names]
    if unknown:
        raise UserError(f"method.stages: no stage '{unknown[0]}'; the stages are {', '.join(names)}")
    if list(stages) != [stage for stage in names if stage in stages]:
        raise UserError(f"method.stages: {', '.join(stages)} is out of order; the order is {', '.join(names)}")
    for stage in stages_of(config):
        if missing := set(stage.reads_with(config)) - {*INGESTED, MEMBERS, *stages}:
            raise UserError(f"method.stages: '{stage.name}' needs '{min(missing)}' before it; add it to the method")


def check_list_metrics(config: Config) -> None:
    """Refuses metrics that look further than the lists of a method that generates them.

    Raises:
        UserError: naming the metric.
    """
    if not generates_lists(config.method.stages):
        return
    for name in config.metrics:
        cutoff = name.partition("@")[2]
        if cutoff.isascii() and cutoff.isdecimal() and int(cutoff) > LIST_LENGTH:
            raise UserError(
                f"metrics: {name} needs ranks beyond {LIST_LENGTH}, and method={config.method.name} gives each user a "
                f"{LIST_MARK}, no full ranking; name cutoffs up to {LIST_LENGTH}"
            )


def check_fusion(config: Config) -> None:
    """Checks the fusion's settings, and that exactly one stage of the method makes each array, as the fusion needs it.

    Raises:
        UserError: naming the setting or the stage.
    """
    check_target("fusion", config.fusion, given=GIVEN_TO_FUSION | arrays_made())
    for array in fusion_inputs(config.fusion):
        known = [stage.name for stage in makers_of(array)]
        makers = [name for name in known if name in config.method.stages]
        if not makers:
            raise UserError(
                f"fusion={config.fusion['name']} needs the stage '{known[0]}', which method={config.method.name} does "
                "not have; choose another fusion or method=tslrec"
            )
        if len(makers) > 1:
            raise UserError(
                f"method.stages: {' and '.join(makers)} both make what fusion={config.fusion['name']} reads; keep one "
                "of them"
            )
    check_knowledge_width(config)
