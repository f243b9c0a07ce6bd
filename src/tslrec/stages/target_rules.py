"""Which trainings can have targets that are distributions over items, of label smoothing or of a teacher."""

from __future__ import annotations

from tslrec.settings.training import TrainingConfig
from tslrec.system.errors import UserError


def check_targets(training: TrainingConfig, model: str, *, taught: bool, pairwise: bool, masked: bool) -> None:
    """Refuses what has no softmax over all items, and a teacher for a backbone that is not trained on the next item.

    Args:
        training: the section.
        model: the backbone's name.
        taught: whether there are soft targets.
        pairwise: whether the backbone is trained by BPR.
        masked: whether it tells masked items.

    Raises:
        UserError: naming the two settings that exclude each other.
    """
    if not taught and training.label_smoothing == 0:
        return
    what = "the stage soft_targets" if taught else f"training.label_smoothing={training.label_smoothing:g}"
    if training.num_negatives is not None:
        raise UserError(
            f"training.num_negatives={training.num_negatives}: {what} needs the softmax over all items; set it to null"
        )
    if pairwise:
        raise UserError(
            f"model={model}: {what} needs a softmax over all items, and BPR compares two of them; set model.bpr=false"
        )
    if taught and masked:
        raise UserError(
            f"model={model}: it tells masked items, and a teacher of the stage soft_targets scores the next one; "
            "choose another model or method"
        )
