"""Whether the validation can tell one model from another, and the test one method from another."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from tslrec.config import Config
from tslrec.stages.method_stages import stages_of
from tslrec.system.errors import UserError

if TYPE_CHECKING:
    from tslrec.data.held_out import HeldOut
    from tslrec.data.interactions import Interactions

log = logging.getLogger(__name__)

FEW_USERS = 30
"""A validation of fewer users than this is warned of: one user more at the first rank changes it by a thirtieth."""

NEARLY_ALL = 0.9
"""A larger share of targets in the users' own histories is warned of."""


def check_selection(config: Config, interactions: Interactions) -> None:
    """Looks at the targets of the validation and of the test before anything is trained; warns of what tells little.

    Raises:
        UserError: if nobody can be evaluated, or the selecting validation is 0 for every model.
    """
    from tslrec.data.evaluated_users import sample_users
    from tslrec.data.held_out import held_out
    from tslrec.data.interactions import MIN_EVALUATED_LENGTH, TEST, VALIDATION

    evaluated = [stage for stage in stages_of(config) if stage.restored_by is not None]
    if not evaluated:
        return
    training, name = config.training, config.data.name
    if not len(interactions.evaluated_users):
        raise UserError(
            f"{name}: no user has {MIN_EVALUATED_LENGTH} interactions, so none is evaluated; give data "
            "with longer histories"
        )
    validation = held_out(interactions, sample_users(interactions, training.validation_users), VALIDATION)
    if training.selection == "masked" and not all(stage.selected_by_loss for stage in evaluated):
        check_masked(validation, name)
    elif validation.users < FEW_USERS:
        log.warning(f"warning: {few(validation.users, name)}")
    if validation.distinct == 1 and validation.users > 1:
        log.warning(f"warning: {name}: all {validation.users:,} users have the same validation item")
    test = held_out(interactions, sample_users(interactions, training.test_users), TEST)
    if test.share > NEARLY_ALL:
        log.warning(
            f"warning: {name}: {test.seen:,} of {test.users:,} test items ({test.share:.1%}) are in the user's own "
            "history, so the metrics with masked history say little; read those under 'not masked'"
        )


def check_masked(validation: HeldOut, name: str) -> None:
    """Checks the validation that selects the weights where the history is masked.

    Args:
        validation: its targets.
        name: the data set's name.

    Raises:
        UserError: if every target is in its user's history.
    """
    told = validation.users - validation.seen
    found = (
        f"{name}: {validation.seen:,} of {validation.users:,} validation items ({validation.share:.1%}) are in the "
        "user's own history"
    )
    if told == 0:
        raise UserError(
            f"{found}, so with the history masked the validation is 0 for every model; set training.selection=unmasked"
        )
    if validation.share > NEARLY_ALL:
        log.warning(f"warning: {found}, so {told:,} users alone select the model; set training.selection=unmasked")
    elif told < FEW_USERS:
        log.warning(f"warning: {few(told, name)}")


def few(users: int, name: str) -> str:
    """The warning of a validation of few users."""
    return f"{name}: the validation that selects the model has {users} users, too few to tell one model from another"
