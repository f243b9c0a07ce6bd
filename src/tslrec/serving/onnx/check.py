"""Compares a graph with PyTorch on real histories.

Shapes: U users, B users of a batch, D of them whose lists differ, K places of a list, E size of a user vector.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from tslrec.serving.engine import Engine, Ids
from tslrec.serving.histories import Histories
from tslrec.serving.recommender import BATCH_SIZE
from tslrec.system.errors import UserError

TOLERANCE = 1e-5
"""Scores of a user whose difference is at most this share of the user's largest score, in absolute value, are near
ties: which is ahead depends on the order in which float32 products are summed."""


@dataclass
class Agreement:
    """How far the lists of two engines agree.

    Attributes:
        users: lists that were compared.
        same: lists with the same items in the same order.
        near_ties: lists in which only items with nearly the same score differ.
        different: positions of the users whose lists differ otherwise.
        largest: largest difference of two scores at one place, as a share of the user's largest score.
    """

    users: int = 0
    same: int = 0
    near_ties: int = 0
    different: list[int] = field(default_factory=list)
    largest: float = 0.0

    def add(self, other: Agreement) -> None:
        """Adds the lists of another comparison."""
        self.users += other.users
        self.same += other.same
        self.near_ties += other.near_ties
        self.different += other.different
        self.largest = max(self.largest, other.largest)

    @property
    def share(self) -> float:
        """Share of the lists that are the same."""
        return self.same / self.users


def compare(reference: Engine, engine: Engine, histories: Histories, length: int, *, filter_seen: bool) -> Agreement:
    """Compares the lists of two engines, user by user.

    Args:
        reference: the engine that is right.
        engine: the other one.
        histories: of the users.
        length: K, at most the number of items.
        filter_seen: whether the items of the history are left out.
    """
    agreement = Agreement()
    for users_B, batch in histories.batches(reference.max_len, BATCH_SIZE, filter_seen=filter_seen):
        ids_BK, scores_BK = reference.best_items(batch, length, None)
        found_BK, found_scores_BK = engine.best_items(batch, length, None)
        user_BE, table_IE = reference.user_vectors(batch), reference.item_vectors()
        # The reference's scores of the items that the other engine chose: equal if they stand for a tie.
        chosen_BK = np.einsum("be,bke->bk", user_BE, table_IE[found_BK])
        empty_BK = ids_BK == 0
        scale_B1 = np.abs(np.where(empty_BK, 0, scores_BK)).max(axis=1, keepdims=True)
        allowed_B1 = TOLERANCE * scale_B1
        same_B = (ids_BK == found_BK).all(axis=1)
        near_B = ((np.abs(chosen_BK - scores_BK) <= allowed_B1) | (empty_BK & (found_BK == 0))).all(axis=1)
        near_B &= distinct(found_BK)
        between_BK = np.abs(np.where(empty_BK, 0, found_scores_BK) - np.where(empty_BK, 0, scores_BK))
        close_B = (between_BK <= 10 * allowed_B1).all(axis=1)
        right_B = close_B & (same_B | near_B)
        agreement.add(
            Agreement(
                users=len(users_B),
                same=int((right_B & same_B).sum()),
                near_ties=int((right_B & ~same_B).sum()),
                different=[int(user) for user in users_B[~right_B]],
                largest=float((between_BK / np.maximum(scale_B1, 1e-30)).max()),
            )
        )
    return agreement


def distinct(ids_BK: Ids) -> Ids:
    """Whether no item stands twice in a list; empty places, 0, may be several."""
    sorted_BK = np.sort(ids_BK, axis=1)
    twice_BK = (sorted_BK[:, 1:] == sorted_BK[:, :-1]) & (sorted_BK[:, 1:] > 0)
    free: Ids = ~twice_BK.any(axis=1)
    return free


def require_agreement(agreement: Agreement, histories: Histories) -> None:
    """Refuses a graph whose lists differ from PyTorch's by more than near ties.

    Raises:
        UserError: naming a user.
    """
    if agreement.different:
        raise UserError(
            f"recommender.onnx: for {len(agreement.different):,} of {agreement.users:,} lists onnxruntime gives other "
            f"items or scores than PyTorch (user {histories.users[agreement.different[0]]} for one); export without "
            "--onnx, and report the backbone"
        )
