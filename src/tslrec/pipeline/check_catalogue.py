"""What can be checked only once the data are read: settings against the numbers of users and items.

Shapes: I items, U users.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tslrec.config import Config
from tslrec.pipeline.check_models import refuse_too_large
from tslrec.settings.metrics import DEFAULT_METRICS
from tslrec.stages.ease.limits import check_ease
from tslrec.stages.method_stages import fusion_inputs, stages_of
from tslrec.system.errors import UserError

if TYPE_CHECKING:
    from tslrec.data.interactions import Interactions


def check_interactions(config: Config, interactions: Interactions) -> None:
    """Checks what depends on the data set, before anything is trained.

    Raises:
        UserError: see `check_catalogue` and `check_tables`; and where nobody can be evaluated, or no model selected.
    """
    from tslrec.pipeline.check_selection import check_selection

    check_catalogue(config, interactions.num_items)
    check_tables(config, interactions.num_items, interactions.num_users)
    check_selection(config, interactions)


def check_catalogue(config: Config, num_items: int) -> None:
    """Checks the numbers that the number of items bounds.

    Raises:
        UserError: if more negatives are to be drawn, more clusters to be made or more items to be looked at than there
            are.
    """
    drawn, name = config.training.num_negatives, config.data.name
    if drawn is not None and drawn >= num_items:
        raise UserError(
            f"training.num_negatives={drawn}: {name} has only {num_items} items; set it lower, or to null "
            "for the softmax over all of them"
        )
    if config.model.get("bpr") and num_items < 2:
        raise UserError(
            f"model.bpr=true: {name} has only one item, and nothing to compare it with; set model.bpr=false"
        )
    clusters = config.preferences.num_clusters
    if clusters > num_items and any(stage.name == "preferences" for stage in stages_of(config)):
        raise UserError(
            f"preferences.num_clusters={clusters}: {name} has only {num_items} items; set it to {num_items} or less"
        )
    stages = {stage.name for stage in stages_of(config)}
    count = config.soft_targets.count
    if count > num_items and "soft_targets" in stages:
        raise UserError(f"soft_targets.count={count}: {name} has only {num_items} items; set it to {num_items} or less")
    if "ease" in stages:
        check_ease(config, num_items)
    size = config.item_text.size
    if size is not None and size >= num_items and "item_text" in stages:
        raise UserError(
            f"item_text.size={size}: {num_items} items of {name} have at most {num_items - 1} principal components; "
            "set it lower"
        )
    for metric in config.metrics:
        if metric not in DEFAULT_METRICS and int(metric.partition("@")[2]) > num_items:
            raise UserError(f"metrics: {metric} looks at more items than the {num_items} of {name}; lower its cutoff")


def check_tables(config: Config, num_items: int, num_users: int) -> None:
    """Checks that the parameters of the backbone and of the fusion fit into memory, from those of a few items.

    Raises:
        UserError: with the memory that they need.
    """
    from tslrec.stages.trial import NUM_ITEMS, NUM_USERS, try_backbone, try_fusion

    size, max_len = config.model["hidden_size"], config.training.max_len

    def of_backbone(items: int, users: int) -> int:
        return try_backbone(config.model, size, max_len, items, users)

    least = of_backbone(NUM_ITEMS, NUM_USERS)
    per_item = of_backbone(NUM_ITEMS + 1, NUM_USERS) - least
    per_user = of_backbone(NUM_ITEMS, NUM_USERS + 1) - least
    if any("fusion" in stage.sections for stage in stages_of(config)):
        arrays = fusion_inputs(config.fusion)
        of_fusion = [try_fusion(config.fusion, arrays, size, items) for items in (NUM_ITEMS, NUM_ITEMS + 1)]
        per_item = max(per_item, of_fusion[1] - of_fusion[0])
    needed = least + float(per_item) * num_items + float(per_user) * num_users
    refuse_too_large(needed, f"model.hidden_size={size} with {num_items:,} items and {num_users:,} users")
