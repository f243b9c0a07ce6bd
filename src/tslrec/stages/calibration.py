"""The temperature at which a teacher's softmax fits what users took next: temperature scaling.

It is that of Guo et al. (2017), "On calibration of modern neural networks", with the validation items.

Shapes: I items (row 0 of a table is padding), T users, B users of a batch, E size of a user vector.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from tslrec.config import Config
from tslrec.data.interactions import Interactions
from tslrec.stages.evaluating import evaluation_inputs, users_of
from tslrec.stages.restored import Restored
from tslrec.system.errors import UserError

SCORE_BYTES = 256 * 2**20
"""Bytes of scores that are kept: of 5,500 users where there are 12,000 items. One number needs no more."""

STEPS = 60
"""Steps of Newton's method at most; it takes fewer than ten."""

BOUNDS = 1e-4, 1e4
"""The least and the largest factor 1 / temperature that is looked at."""

NEAR = 1e-6
"""Relative change of the factor at which the search ends."""


@torch.inference_mode()
def calibrated_temperature(teacher: Restored, interactions: Interactions, config: Config) -> float:
    """The temperature with the least cross-entropy of the validation items, under the softmax over all items.

    Test items play no part. The cross-entropy is convex in 1 / temperature.

    Args:
        teacher: scores all items.
        interactions: the data set.
        config: the run's: which users are validated.

    Raises:
        UserError: if a score is not finite, or a teacher gives all items the same score.
    """
    scores_TI, targets_T = validation_scores(teacher, interactions, config)
    if not torch.isfinite(scores_TI).all():
        raise UserError("soft_targets: the teacher gave scores that are not finite; look at the ensemble's members")
    if not bool((scores_TI != scores_TI[:, :1]).any()):
        raise UserError("soft_targets: the teacher gives all items the same score; look at the ensemble's members")
    return 1 / best_factor(scores_TI, targets_T)


def validation_scores(teacher: Restored, interactions: Interactions, config: Config) -> tuple[Tensor, Tensor]:
    """The scores of all items `[T, I]`, padding left out, and the columns of the validation items `[T]`.

    They are those of all validation users, or of as many of them, drawn once, as `SCORE_BYTES` hold.
    """
    most = max(1, SCORE_BYTES // (4 * (len(teacher.output_IE) - 1)))
    if len(users_of(interactions, config, "validation")) > most:
        config = replace(config, training=replace(config.training, validation_users=most))
    scores, targets = [], []
    for batch in evaluation_inputs(interactions, config, "validation", teacher.max_len):
        user_BE = teacher.encode(batch.items_BL, batch.lengths_B).float()
        scores.append(teacher.scores(user_BE))
        targets.append(batch.targets - 1)
    return torch.cat(scores), torch.cat(targets)


def best_factor(scores_TI: Tensor, targets_T: Tensor) -> float:
    """The factor f with the least mean cross-entropy of softmax(f · scores), between `BOUNDS`.

    Its derivative is the mean over users of the expected score less the target's; it rises with f. Newton's method on
    it stays inside of the bracket that the signs leave, which is halved where a step would leave it.

    Args:
        scores_TI: finite.
        targets_T: column of each user's item.
    """
    target_T = scores_TI.gather(1, targets_T[:, None])[:, 0].double()
    low, high = BOUNDS
    factor = 1.0
    for _ in range(STEPS):
        slope, curvature = derivatives(scores_TI, target_T, factor)
        if slope > 0:
            high = factor
        else:
            low = factor
        step = factor - slope / curvature if curvature > 0 else factor
        following = step if low < step < high else (low * high) ** 0.5
        if abs(following - factor) <= NEAR * factor:
            break
        factor = following
    return factor


def derivatives(scores_TI: Tensor, target_T: Tensor, factor: float) -> tuple[float, float]:
    """The first and the second derivative of the mean cross-entropy by the factor.

    Args:
        scores_TI: see `best_factor`.
        target_T: the targets' scores, float64.
        factor: where.
    """
    slope, curvature = 0.0, 0.0
    for scores_BI, target_B in zip(scores_TI.split(512), target_T.split(512), strict=True):
        shares_BI = (scores_BI * factor).softmax(dim=1)
        mean_B = (shares_BI * scores_BI).sum(dim=1)
        slope += float((mean_B.double() - target_B).sum())
        curvature += float((shares_BI * (scores_BI - mean_B[:, None]).square()).sum(dtype=torch.float64))
    return slope / len(scores_TI), curvature / len(scores_TI)
