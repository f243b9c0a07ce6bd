"""Exact full ranking under both protocols: the rank of each target, and the first items of each user's list.

Both go through the item table in blocks, so that memory does not grow with users × items. On a GPU they are those of
`tslrec.evaluation.device_ranking`, which do not wait for the device.

Shapes: B users, I items, D size of a user vector, S (user, item) pairs of histories, C items of a block, K items of a
list.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from tslrec.evaluation import device_ranking
from tslrec.evaluation.best_items import best_columns, empty_lists, merged, padded_to, shifted
from tslrec.evaluation.device_ranking import may_overflow
from tslrec.evaluation.one_type import in_one_type
from tslrec.evaluation.used_columns import with_used_columns
from tslrec.system import devices
from tslrec.system.errors import UserError

CPU_BLOCK = 2 * 2**20, 256, 2**11
"""On a CPU: bytes of scores held at a time, and the least and the most items of a block. The scores then stay in the
cache while they are counted."""
DEVICE_BLOCK = 256 * 2**20, 2**12, 2**20
"""The same on a device that is neither a CPU nor a GPU of CUDA (`device_ranking`), where a kernel needs much work to be
worth its launch. With at most 2²⁰ items the count of a block is exact in float32."""
ITEM_IDS = 2**32
"""Above every item id: a row times this, plus an item id, is a number for the pair."""


def target_ranks(
    user_BD: Tensor, table_ID: Tensor, targets_B: Tensor, seen_rows_S: Tensor, seen_items_S: Tensor
) -> tuple[Tensor, Tensor]:
    """Ranks of targets among all items by dot product, one block of items at a time; padding (row 0) is excluded.

    A rank is 1 + the number of items that score strictly higher + half the number of other items that score the same,
    so that a model which gives every item the same score does not look perfect. With n other items, of which H score
    higher and L lower, that is 1 + (n + H - L) / 2. H - L is a sum of signs: one pass over scores that are still in
    the cache.

    Args:
        user_BD: user vectors.
        table_ID: the item table; row 0 is padding.
        targets_B: item ids, from 1.
        seen_rows_S: with `seen_items_S`, the items that each row's user had before; a pair may occur more than once.
        seen_items_S: item ids, from 1.

    Returns:
        Float64 ranks `[B]`, from 1: masked (seen items are no candidates; a target that was seen can never be
        recommended, and its rank is infinite), and unmasked.

    Raises:
        UserError: if a score is not finite.
    """
    if devices.queues_work(user_BD.device):
        return device_ranking.target_ranks(user_BD, table_ID, targets_B, seen_rows_S, seen_items_S)
    user_BD, table_ID = with_used_columns(user_BD, table_ID)
    user_BD, items_ID = in_one_type(user_BD, table_ID[1:])
    size, num_items = len(user_BD), len(items_ID)
    width = block_width(size, num_items, user_BD)
    scores_BC = user_BD.new_empty(size, width)
    target_B = scores_of_targets(user_BD, items_ID, targets_B - 1, scores_BC)
    check_scores = may_overflow(user_BD, items_ID)

    # Sorted by item, then row: the pairs of a block, and its targets, are a slice.
    seen_columns_S, seen_rows_S = distinct_pairs(seen_rows_S, seen_items_S, size)
    target_columns_B, target_rows_B = (targets_B - 1).sort()
    seen_cuts = block_cuts(seen_columns_S, num_items, width)
    target_cuts = block_cuts(target_columns_B, num_items, width)

    ahead_B = user_BD.new_zeros(size, dtype=torch.float64)
    seen_sign_S = torch.zeros_like(seen_rows_S, dtype=torch.float64)
    for block, begin in enumerate(range(0, num_items, width)):
        # The last block overlaps the one before, so that each product has the same shape (see `scores_of_targets`).
        first = min(begin, num_items - width)
        torch.mm(user_BD, items_ID[first : first + width].T, out=scores_BC)
        if check_scores and not torch.isfinite(scores_BC).all():
            raise UserError("evaluation: scores that are not finite; lower the learning rate, or look at the weights")
        here = slice(target_cuts[block], target_cuts[block + 1])
        rows = target_rows_B[here]
        # A target ties with itself, in whichever order its products were summed.
        scores_BC[rows, target_columns_B[here] - first] = target_B[rows]
        sign_BC = scores_BC.sub_(target_B[:, None]).sign_()
        ahead_B += sign_BC[:, begin - first :].sum(dim=1, dtype=torch.float32)
        seen = slice(seen_cuts[block], seen_cuts[block + 1])
        seen_sign_S[seen] = sign_BC[seen_rows_S[seen], seen_columns_S[seen] - first].double()

    unmasked_B = 1 + (num_items - 1 + ahead_B) / 2
    # Each seen item other than the target takes away one other item and its sign.
    is_target_S = seen_columns_S == targets_B[seen_rows_S] - 1
    masked_B = unmasked_B.index_add(0, seen_rows_S, -(1 + seen_sign_S) / 2)
    masked_B[seen_rows_S[is_target_S]] = torch.inf
    return masked_B, unmasked_B


def top_lists(
    user_BD: Tensor, table_ID: Tensor, length: int, seen_rows_S: Tensor, seen_items_S: Tensor
) -> tuple[Tensor, Tensor]:
    """The items that score highest, best first, one block of items at a time; of equal scores the lower id is first.

    Args:
        user_BD: user vectors.
        table_ID: the item table; row 0 is padding. All scores are finite, as `target_ranks` has checked.
        length: K.
        seen_rows_S: see `target_ranks`.
        seen_items_S: see `target_ranks`.

    Returns:
        Item ids, int64 `[B, K]`, masked and unmasked; 0 where there are no more candidates.
    """
    if devices.queues_work(user_BD.device):
        return device_ranking.top_lists(user_BD, table_ID, length, seen_rows_S, seen_items_S)
    user_BD, table_ID = with_used_columns(user_BD, table_ID)
    user_BD, items_ID = in_one_type(user_BD, table_ID[1:])
    size, num_items = len(user_BD), len(items_ID)
    width = block_width(size, num_items, user_BD)
    scores_BC = user_BD.new_empty(size, width)
    seen_columns_S, seen_rows_S = distinct_pairs(seen_rows_S, seen_items_S, size)
    seen_cuts = block_cuts(seen_columns_S, num_items, width)

    unmasked, masked = empty_lists(user_BD), empty_lists(user_BD)
    for block, begin in enumerate(range(0, num_items, width)):
        first = min(begin, num_items - width)
        torch.mm(user_BD, items_ID[first : first + width].T, out=scores_BC)
        new_BC = scores_BC[:, begin - first :]
        count = min(length, new_BC.shape[1])
        unmasked = merged(unmasked, shifted(best_columns(new_BC, count), begin + 1), length)
        seen = slice(seen_cuts[block], seen_cuts[block + 1])
        new_BC[seen_rows_S[seen], seen_columns_S[seen] - begin] = -torch.inf
        masked = merged(masked, shifted(best_columns(new_BC, count), begin + 1), length)
    found = (padded_to(*each, length) for each in (masked, unmasked))
    masked_BK, unmasked_BK = (items_BK.masked_fill(scores_BK == -torch.inf, 0) for items_BK, scores_BK in found)
    return masked_BK, unmasked_BK


def ranks_in_lists(lists_BK: Tensor, targets_B: Tensor) -> Tensor:
    """The place of each target in its user's list, from 1, float64 `[B]`; infinite where it is not in the list.

    Args:
        lists_BK: item ids, best first, distinct; 0 is an empty place.
        targets_B: item ids, from 1.
    """
    hit_BK = lists_BK == targets_B[:, None]
    place_B = hit_BK.double().argmax(dim=1) + 1
    return place_B.double().masked_fill(~hit_BK.any(dim=1), torch.inf)


def without_seen(lists_BK: Tensor, seen_rows_S: Tensor, seen_items_S: Tensor) -> Tensor:
    """Lists without the items that their users had before; what is behind such an item moves up, 0 fills the end.

    Args:
        lists_BK: item ids, best first; 0 is an empty place.
        seen_rows_S: see `target_ranks`.
        seen_items_S: see `target_ranks`.
    """
    left_BK = lists_BK.masked_fill(seen_places(lists_BK, seen_rows_S, seen_items_S), 0)
    order_BK = (left_BK == 0).sort(dim=1, stable=True).indices
    return left_BK.gather(1, order_BK)


def seen_places(lists_BK: Tensor, seen_rows_S: Tensor, seen_items_S: Tensor) -> Tensor:
    """Which places of lists hold an item that the list's user had before, bool `[B, K]`; an empty place does not.

    The arguments are those of `without_seen`.
    """
    rows_B1 = torch.arange(len(lists_BK), device=lists_BK.device)[:, None]
    # Looked up among sorted numbers; -1 is no pair, and makes one where there is none.
    pairs_S = (F.pad(seen_rows_S, (1, 0)) * ITEM_IDS + F.pad(seen_items_S, (1, 0), value=-1)).sort().values
    pairs_BK = rows_B1 * ITEM_IDS + lists_BK
    found_BK = torch.searchsorted(pairs_S, pairs_BK).clamp_(max=len(pairs_S) - 1)
    return pairs_S[found_BK] == pairs_BK


def distinct_pairs(seen_rows_S: Tensor, seen_items_S: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Distinct pairs by item, then row: the items' columns (id - 1) and the rows, int64 `[S]` both."""
    pairs_S = torch.unique((seen_items_S - 1) * size + seen_rows_S)
    return pairs_S // size, pairs_S % size


def block_cuts(columns_S: Tensor, num_items: int, width: int) -> list[int]:
    """Where each block's part of sorted columns begins, and where the last one's ends."""
    begins = torch.arange(0, num_items + width, width, device=columns_S.device)
    cuts: list[int] = torch.searchsorted(columns_S, begins).tolist()
    return cuts


def block_width(size: int, num_items: int, like: Tensor) -> int:
    """Items of a block, whose scores for `size` users are held at a time; `like` gives the device and the type."""
    block_bytes, least, most = CPU_BLOCK if like.device.type == "cpu" else DEVICE_BLOCK
    width = block_bytes // (max(1, size) * like.element_size())
    return min(max(least, min(width, most)), num_items)


def scores_of_targets(user_BD: Tensor, items_ID: Tensor, target_columns_B: Tensor, scores_BC: Tensor) -> Tensor:
    """Each user's score of its own target, `[B]`.

    The product has the shape of a block's, so that it is summed in the same order: an item with the target's vector
    gets the target's score, to the last bit.

    Args:
        user_BD: user vectors.
        items_ID: the item table without padding.
        target_columns_B: rows of `items_ID`.
        scores_BC: the buffer of a block's scores; overwritten.
    """
    size, width = scores_BC.shape
    target_B = user_BD.new_empty(size)
    for begin in range(0, size, width):
        columns_C = target_columns_B[begin : begin + width]
        chosen_CD = items_ID[F.pad(columns_C, (0, width - len(columns_C)))]
        torch.mm(user_BD, chosen_CD.T, out=scores_BC)
        target_B[begin : begin + width] = scores_BC[begin : begin + width].diagonal()
    return target_B
