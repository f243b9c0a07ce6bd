"""The members of a run: recommenders of other runs, which its stages read (`tslrec.stages.members`).

A member is the run that a person would start with the same command line and some words changed. So its results have
the keys of that run, and are shared with it.
"""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tslrec.config import Config
from tslrec.pipeline.composition import Composer
from tslrec.pipeline.overrides import fitted
from tslrec.pipeline.planning import resolve_llm, source_config
from tslrec.stages.method_stages import runs_llm
from tslrec.system.errors import UserError
from tslrec.system.shown_values import shown

if TYPE_CHECKING:
    from tslrec.llm.weights_source import ResolvedSource

OF_THE_RUN = {"compare": "[]", "members": "[]", "continue_from": None, "examples": 0}
"""Settings that a run has for itself, with the values that its members have instead."""

OF_ITS_STAGES = ("fusion", "ensemble", "soft_targets", "source_model")
"""Settings of the stages that read members, or come after them. The words of a member may set them anew."""

SHARED = ("data", "artifacts", "cache")
"""What a run and its members have in common."""


@dataclass(frozen=True)
class PlannedMember:
    """A member before anything of it has run.

    Attributes:
        words: what its command line has otherwise than the run's.
        config: its configuration.
        source: that of its stage 1.
        llm: where its language model's weights come from; None if none of its stages runs one.
    """

    words: str
    config: Config
    source: Config
    llm: ResolvedSource | None


def planned_members(config: Config, composer: Composer, llm: ResolvedSource | None) -> tuple[PlannedMember, ...]:
    """The members that a run names, each composed, with its language model found.

    Args:
        config: the run's.
        composer: composes their configurations from the run's command line.
        llm: where the weights of the run's own language model come from; None if no stage of its own runs one.

    Raises:
        UserError: naming the member whose words cannot be read, or that is no member of this run.
    """
    return tuple(planned_member(words, config, composer, llm) for words in config.members)


def planned_member(words: str, config: Config, composer: Composer, llm: ResolvedSource | None) -> PlannedMember:
    """One member; the arguments are those of `planned_members`, and its words.

    Raises:
        UserError: see `planned_members`.
    """
    try:
        own = composer_of(words, composer)
        found = own.config()
        if found.data != config.data:
            raise UserError(f"its data set is not the run's, data={config.data.name}; name the data for the run alone")
        if runs_llm(found) and (llm is None or found.llm != config.llm):
            llm = resolve_llm(found, [found])
            if llm is None:
                own = own.changed({"llm": found.fallback_llm})
                found = own.config()
                llm = resolve_llm(found, [found])
        return PlannedMember(words, found, source_config(found, own), llm if runs_llm(found) else None)
    except UserError as error:
        raise of_member(words, error) from error


def composer_of(words: str, composer: Composer) -> Composer:
    """Composes a member's configuration, and those of the runs that it is made of.

    Args:
        words: the member's.
        composer: of the run's command line.

    Raises:
        UserError: if the words cannot be read, or do not compose.
    """
    return composer.changed({**OF_THE_RUN, "method": "base", **choices_of(words)}, drop=OF_ITS_STAGES)


def choices_of(words: str) -> dict[str, Any]:
    """What the words of a member set, by key.

    Raises:
        UserError: if a word is not KEY=VALUE, a key stands twice, or a member cannot have such a setting.
    """
    try:
        parts = shlex.split(words)
    except ValueError as error:
        raise UserError(f"cannot be read ({error}); write it like 'model=fmlp seed=1'") from error
    choices: dict[str, Any] = {}
    for part in parts:
        key, sign, value = part.partition("=")
        name = key.lstrip("+")
        if not sign or not name or key.startswith("~"):
            raise UserError(f"{shown(part)} is not KEY=VALUE; write it like 'model=fmlp seed=1'")
        if key in choices:
            raise UserError(f"{shown(key)} is set twice; keep one of the two")
        if name == "members":
            raise UserError("a member has no members of its own; name them beside the others")
        if name in OF_THE_RUN or name.partition(".")[0] in SHARED:
            raise UserError(f"{shown(part)} is the run's own; set it for the run, or leave it out")
        choices[key] = value
    return choices


def of_member(words: str, error: UserError) -> UserError:
    """An error of a member's configuration or words as one of the run's `members`."""
    return UserError(fitted(f"members: '{shown(words)}': {error}"))
