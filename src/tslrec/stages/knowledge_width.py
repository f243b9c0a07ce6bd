"""How wide the knowledge is that a fusion is given, and whether it may be so wide.

Shapes: H size of an item's knowledge, D hidden size of the backbone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tslrec.config import Config
from tslrec.stages.method_stages import fusion_inputs, maker_of
from tslrec.system.errors import UserError
from tslrec.system.targets import find_target


def takes_width(fusion: Mapping[str, Any]) -> bool:
    """Whether a fusion's knowledge must be as wide as the backbone: its class says `takes_width = True`.

    Args:
        fusion: the `fusion` section.
    """
    return bool(getattr(find_target("fusion", fusion), "takes_width", False))


def check_knowledge_width(config: Config, width: int | None = None) -> None:
    """Checks that the knowledge is as wide as the fusion needs it.

    Args:
        config: of a method with a fusion, each of whose inputs one stage makes.
        width: H of the knowledge that is there; None: as far as the configuration tells it.

    Raises:
        UserError: with both widths.
    """
    if "knowledge_IH" not in fusion_inputs(config.fusion) or not takes_width(config.fusion):
        return
    maker, wanted = maker_of(config, "knowledge_IH"), config.model["hidden_size"]
    found = configured_width(config, maker) if width is None else width
    if found is None or found == wanted:
        return
    remedy = f"set item_text.size={wanted}" if maker == "item_text" else "choose another fusion, such as gate"
    raise UserError(
        f"fusion={config.fusion['name']}: needs knowledge of model.hidden_size={wanted} numbers an item, "
        f"the stage '{maker}' gives {found}; {remedy}"
    )


def configured_width(config: Config, maker: str) -> int | None:
    """H of what a stage will make; None where the configuration does not tell it.

    Args:
        config: of the run.
        maker: the stage's name.
    """
    if maker == "own_embeddings":
        return None if config.source_model is not None else int(config.model["hidden_size"])
    if maker == "item_text" and config.item_text.size is not None:
        return config.item_text.size
    if config.llm.random is not None:
        from tslrec.llm.tiny import complete_sizes

        return complete_sizes(config.llm.random)["hidden_size"]
    return (config.llm.shape or {}).get("hidden_size")
