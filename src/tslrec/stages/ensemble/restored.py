"""Rebuilds an ensemble: its members, and their weights from the stage's artifact."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from tslrec.data.interactions import Interactions
from tslrec.stages.ensemble.combining import Voice, combined, voice_of
from tslrec.stages.ensemble.search import Weights
from tslrec.stages.fusion_inputs import Sources
from tslrec.stages.members import Member
from tslrec.stages.outputs import ENSEMBLE
from tslrec.stages.restored import Restored, restore_member
from tslrec.system.errors import UserError


def restore(sources: Sources, folder: Path) -> Restored:
    """The recommender whose scores are the weighted sum of the members' scores.

    Args:
        sources: the run's configuration, data set and members.
        folder: the stage's artifact.

    Raises:
        UserError: if the weights cannot be read, or are not those of as many members; see also `restore_member`.
    """
    weights = read_weights(folder)
    if len(weights) != len(sources.members):
        raise UserError(
            f"{folder / ENSEMBLE}: {len(weights)} weights, but {len(sources.members)} members; use the run as it was "
            "written"
        )
    return combined(voices_of(sources.members, sources.interactions, sources.config.ensemble.scores), weights)


def voices_of(members: Sequence[Member], interactions: Interactions, scores: str) -> list[Voice]:
    """Rebuilds the members' recommenders.

    Args:
        members: the members.
        interactions: the data set.
        scores: see `voice_of`.

    Raises:
        UserError: if one has a vector per user, or see `restore_member`.
    """
    found = []
    for member in members:
        restored = restore_member(member, interactions)
        if restored.backbone is not None and restored.backbone.user_embedding is not None:
            raise UserError(
                f"members: '{member.words}' has a vector per user, so it serves no other histories; name another model"
            )
        found.append(voice_of(restored, scores))
    return found


def read_weights(folder: Path) -> Weights:
    """The weights of an ensemble's members.

    Args:
        folder: the stage's artifact.

    Raises:
        UserError: if they cannot be read.
    """
    try:
        content = json.loads((folder / ENSEMBLE).read_text(encoding="utf-8"))
        return tuple(float(weight) for weight in content["weights"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{folder / ENSEMBLE}: not the weights of an ensemble ({error!r}); train it again") from error
