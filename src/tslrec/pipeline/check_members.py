"""Whether the members of a run can be what its stages read; checked before anything is trained."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tslrec.config import Config
from tslrec.pipeline.members import PlannedMember, of_member
from tslrec.pipeline.overrides import refusal
from tslrec.stages.method_stages import reads_members, stages_of
from tslrec.stages.registry import STAGES
from tslrec.system.errors import UserError
from tslrec.system.shown_values import shown

EXAMPLE = """members='["model=sasrec","model=fmlp"]'"""


def check_named(planned: Sequence[Config]) -> None:
    """Checks that there are members if a method reads them, and none if no method does.

    Args:
        planned: the configurations of all methods of a run.

    Raises:
        UserError: if they are missing, too many, or of a run that continues another one.
    """
    config = planned[-1]
    reading = next((each for each in planned if reads_members(each)), None)
    if reading is None:
        if config.members:
            reader = next((stage.name for stage in STAGES if "members" in stage.reads), None)
            named = "" if reader is None else f", such as method={reader}"
            raise refusal(
                f"members: method={config.method.name} reads none; leave them out, or choose a method that does{named}"
            )
        return
    if not config.members:
        raise UserError(
            f"members=[]: method={reading.method.name} reads the recommenders of other runs; name what their command "
            f"lines have otherwise than this one, {EXAMPLE}"
        )
    if config.continue_from is not None:
        raise UserError(
            f"continue_from: a run with members cannot continue another one; train method={reading.method.name} anew "
            "without continue_from"
        )
    if any(stage.name == "ensemble" for stage in stages_of(reading)):
        check_weights(config)


def check_weights(config: Config) -> None:
    """Checks the weights of an ensemble that are given: one for each member.

    Raises:
        UserError: if there are more or fewer, one is negative, or all are 0.
    """
    weights = config.ensemble.weights
    if weights is None:
        return
    if len(weights) != len(config.members):
        raise UserError(
            f"ensemble.weights: {len(weights)} of them for {len(config.members)} members; give one for each member"
        )
    for weight in weights:
        if not (math.isfinite(weight) and weight >= 0):
            raise UserError(f"ensemble.weights: {weight} is no weight; each must be finite and 0 or more")
    if not sum(weights) > 0:
        raise UserError("ensemble.weights: all are 0; give at least one member a weight above 0")


def check_members(config: Config, members: Sequence[PlannedMember]) -> None:
    """Checks that each member gives a recommender that the run's method can read, and that no two are the same run.

    Args:
        config: of a method that reads members; its settings fit (`check`), as do those of the members.
        members: all of them.

    Raises:
        UserError: naming the member.
    """
    for position, member in enumerate(members):
        try:
            check_recommender(member.config)
            check_processes(config, member.config)
            if any(stage.name == "ensemble" for stage in stages_of(config)):
                check_no_user_vectors(member.config)
        except UserError as error:
            raise of_member(member.words, error) from error
        for earlier in members[:position]:
            if earlier.config == member.config:
                raise same_run(earlier.words, member.words)


def same_run(first: str, second: str) -> UserError:
    """Two members that are the same run; each must be another one."""
    return refusal(f"members: '{shown(first)}' and '{shown(second)}' are the same run; name each member once")


def check_recommender(config: Config) -> None:
    """Checks that a member's method gives scores of all items.

    Raises:
        UserError: if it does not.
    """
    method, stages = config.method.name, stages_of(config)
    if reads_members(config):
        raise UserError(f"method={method} reads members, and a member has none of its own; name another method")
    last = stages[-1] if stages else None
    if last is None or last.restored_by is None or last.generates_lists or last.reranks:
        raise UserError(f"method={method} gives no scores of all items; name another method, such as base")


def check_processes(config: Config, member: Config) -> None:
    """Checks that a member runs in the processes of the run.

    Raises:
        UserError: if it asks for others.
    """
    for name in ("accelerator", "devices", "num_nodes"):
        own, wanted = getattr(config.trainer, name), getattr(member.trainer, name)
        if own != wanted:
            raise UserError(f"trainer.{name}={shown(wanted)} is not the run's, {shown(own)}; leave it out")


def check_no_user_vectors(config: Config) -> None:
    """Checks that a member's backbone has no vector per user, for whom alone an ensemble could then score.

    Raises:
        UserError: if it has.
    """
    if "model" not in stages_of(config)[-1].sections:
        return
    from tslrec.stages.trial import NUM_ITEMS, NUM_USERS, try_backbone

    size, max_len = config.model["hidden_size"], config.training.max_len
    fewer, more = (try_backbone(config.model, size, max_len, NUM_ITEMS, users) for users in (NUM_USERS, NUM_USERS + 1))
    if more > fewer:
        raise UserError(
            f"model={config.model['name']} has a vector per user, so it serves no other histories; name another model"
        )
