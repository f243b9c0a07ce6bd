"""Whether the backbone and the fusion can be built from their settings: they are, of a few items and without numbers.

Shapes: D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tslrec.config import Config
from tslrec.settings.choices import MODEL_KEYS, OWN_KEYS
from tslrec.stages.method_stages import fusion_inputs, stages_of
from tslrec.system.errors import UserError
from tslrec.system.machine_memory import in_gib, memory_bytes
from tslrec.system.shown_values import shown
from tslrec.system.targets import find_target

if TYPE_CHECKING:
    from tslrec.stages.trial import Unfit

GIVEN_TO_MODEL = frozenset({"item_embedding", "num_users", "max_len"})
"""Parameters of a backbone that Python fills in."""

LARGEST_SIZE = 2**20
"""The largest D."""

COPIES = 4
"""Tables that training keeps of each parameter: the parameter, its gradient and Adam's two moments."""

SHOWN_SETTINGS = 4
"""Settings that a message names where no single one is at fault."""


def check_models(config: Config) -> None:
    """Builds the backbone and the fusion on PyTorch's meta device and runs them once.

    Raises:
        UserError: naming the settings with which that fails, that exclude each other, or that need more memory than the
            machine has.
    """
    from tslrec.stages.trial import Unfit, try_backbone, try_fusion

    size = config.model.get("hidden_size")
    if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= LARGEST_SIZE:
        raise UserError(f"model.hidden_size={shown(size)}: must be a whole number from 1 to {LARGEST_SIZE}")
    max_len = config.training.max_len
    try:
        needed = try_backbone(config.model, size, max_len)
    except Unfit as error:
        values = {**config.model, "max_len": max_len}
        message = refusal("model", values, error, lambda tried: try_backbone(tried, *taken(tried)))
        raise UserError(message) from error
    if config.model.get("bpr") and config.training.num_negatives is not None:
        raise UserError(
            f"training.num_negatives={config.training.num_negatives}: model.bpr=true compares each target with one "
            "item that it draws itself; set one of the two to null or false"
        )
    from tslrec.models.backbones.base import MaskedBackbone
    from tslrec.stages.target_rules import check_targets

    target = find_target("model", config.model)
    check_targets(
        config.training,
        str(config.model.get("name")),
        taught=any(stage.name == "soft_targets" for stage in stages_of(config)),
        pairwise=bool(config.model.get("bpr")),
        masked=isinstance(target, type) and issubclass(target, MaskedBackbone),
    )
    refuse_too_large(
        needed, f"model={config.model.get('name')} with model.hidden_size={size}, training.max_len={max_len}"
    )
    if any("fusion" in stage.sections for stage in stages_of(config)):
        arrays = fusion_inputs(config.fusion)
        try:
            try_fusion(config.fusion, arrays, size)
        except Unfit as error:
            values = {**config.fusion, "hidden_size": size}
            message = refusal(
                "fusion", values, error, lambda tried: try_fusion(tried, arrays, tried.pop("hidden_size"))
            )
            raise UserError(message) from error


def taken(values: dict[str, Any]) -> tuple[int, int]:
    """D and the longest input, taken out of a section in which they stand beside the backbone's settings."""
    return values.get("hidden_size", 0), values.pop("max_len")


def refusal(where: str, values: Mapping[str, Any], error: Unfit, attempt: Callable[[dict[str, Any]], Any]) -> str:
    """The line about settings that cannot be built. It names those of which a usual value would work.

    Args:
        where: the section, `model` or `fusion`.
        values: the section, and the sizes that are set elsewhere.
        error: why it cannot be built.
        attempt: builds a copy of `values`; it raises what `error` is if that fails.
    """
    usual = {**usual_values(where, values), "hidden_size": 64, "max_len": 50}
    own = [key for key in values if key not in OWN_KEYS and key != "_target_"]
    cures = [key for key in own if key in usual and usual[key] != values[key] and works(attempt, values, key, usual)]
    named = [f"{key_of(where, key)}={shown(values[key])}" for key in (cures or own)[:SHOWN_SETTINGS]]
    settings = ", ".join(named) or f"{where}={values.get('name')}"
    target = str(values["_target_"]).rpartition(".")[2]
    return f"{settings}: {shown(target)} cannot be built: {str(error)[:140]}"


def works(
    attempt: Callable[[dict[str, Any]], Any], values: Mapping[str, Any], key: str, usual: Mapping[str, Any]
) -> bool:
    """Whether the settings can be built with the usual value of one of them."""
    from tslrec.stages.trial import Unfit

    try:
        attempt({**values, key: usual[key]})
    except Unfit:
        return False
    return True


def usual_values(where: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The defaults of the parameters of a section's `_target_`, where it has any."""
    import inspect

    parameters = inspect.signature(find_target(where, values)).parameters
    return {name: each.default for name, each in parameters.items() if each.default is not each.empty}


def key_of(where: str, name: str) -> str:
    """The key of a setting as people write it: sizes stand in other sections than the fusion."""
    if name == "max_len":
        return "training.max_len"
    return f"model.{name}" if name in MODEL_KEYS else f"{where}.{name}"


def refuse_too_large(needed: float, what: str) -> None:
    """Refuses what needs more memory than the machine has.

    Args:
        needed: bytes of the parameters and buffers.
        what: the settings that ask for it.

    Raises:
        UserError: with the memory that is needed, and that there is.
    """
    there = memory_bytes()
    if there is not None and COPIES * needed > there:
        raise UserError(
            f"{what}: training needs {in_gib(COPIES * needed)} for the parameters, this machine has {in_gib(there)}; "
            "set them lower"
        )
