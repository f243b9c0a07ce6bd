"""Whether a model folder's weights are those of the model that its config.json describes, by their names and shapes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tslrec.system.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

NAMES_SHOWN = 2
"""Names that a message shows of many."""

NAME_SHOWN = 40
"""Characters of such a name, from its end."""


def check_weight_names(folder: Path) -> None:
    """Reads the headers of the weights as loading does, and compares them with the model; no weight is read.

    Raises:
        UserError: see `refuse_incomplete`; and if the weights cannot be loaded.
    """
    import torch
    from transformers import AutoModel

    from tslrec.llm.architecture import quietly, reason, short

    try:
        with quietly():
            model, found = AutoModel.from_pretrained(
                folder,
                local_files_only=True,
                use_safetensors=True,
                trust_remote_code=False,
                dtype=torch.float32,
                attn_implementation="sdpa",
                device_map={"": "meta"},
                output_loading_info=True,
                ignore_mismatched_sizes=True,
            )
    except Exception as error:
        raise UserError(f"{short(folder)}: its weights cannot be loaded: {reason(error)}") from error
    refuse_incomplete(folder, model, found)


def refuse_incomplete(folder: Path, model: PreTrainedModel, found: Mapping[str, Any]) -> None:
    """Refuses weights that lack parameters of the model, have others inside of it, or have other shapes.

    Weights outside of the model, such as its head for tokens, are not needed.

    Args:
        folder: the model folder.
        model: the model.
        found: what transformers says of loading it.

    Raises:
        UserError: with the first names, and how many there are.
    """
    from tslrec.llm.architecture import short

    missing = sorted(found.get("missing_keys") or ())
    shapes = sorted(str(each[0]) for each in found.get("mismatched_keys") or ())
    inside = sorted(name for name in found.get("unexpected_keys") or () if is_inside(name, model))
    for names, what in ((missing, "lack"), (shapes, "have other shapes of"), (inside, "have, and the model has not,")):
        if names:
            total = len(model.state_dict())
            hint = prefix_of(missing, found.get("unexpected_keys") or ())
            raise UserError(
                f"{short(folder)}: not the weights of the model in config.json: they {what} "
                f"{listed(names)} ({len(names)} names; the model has {total}){hint}"
            )


def is_inside(name: str, model: PreTrainedModel) -> bool:
    """Whether a weight's name lies in one of the model's own parts; buffers of older versions do not count."""
    prefix = f"{model.base_model_prefix}."
    part = name.removeprefix(prefix).partition(".")[0]
    buffers = ("inv_freq", "masked_bias", "attn.bias", "position_ids")
    return part in dict(model.named_children()) and not name.endswith(buffers)


def prefix_of(missing: Collection[str], unexpected: Collection[str]) -> str:
    """The end of the message where all names have the same beginning too many, such as `module.`."""
    beginnings = {name.partition(".")[0] for name in unexpected}
    if missing and len(unexpected) > 1 and len(beginnings) == 1:
        return f"; all names begin with '{next(iter(beginnings))}.': save the model without its wrapper"
    return ""


def listed(names: Collection[str]) -> str:
    """The first of some names, the beginning of a long one left out."""
    first = [name if len(name) <= NAME_SHOWN else f"…{name[-NAME_SHOWN:]}" for name in list(names)[:NAMES_SHOWN]]
    return ", ".join(first) + (", …" if len(names) > NAMES_SHOWN else "")
