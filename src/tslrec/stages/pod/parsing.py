"""Reads lists of items out of the texts that POD generates (lileipisces/POD fd31697).

Shapes: U users, N beams, I items (0 is padding).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from tslrec.evaluation.generated_lists import free_text_lists
from tslrec.evaluation.hooks import EvaluatedUsers, ListedUsers
from tslrec.stages.pod.numbering import Numbering


def number_in(text: str) -> int | None:
    """The number up to the text's first space, as `int` reads it; None where that is no number.

    The public code then recommends a random item; here such a text names none.
    """
    try:
        return int(text.split(" ")[0])
    except ValueError:
        return None


def items_in(texts_UN: Sequence[Sequence[str]], numbering: Numbering) -> NDArray[np.int64]:
    """The item that each text names, int64 `[U, N]`; 0 where it names none.

    Args:
        texts_UN: the beams of each user, best first, as many for each.
        numbering: of the prompts.
    """
    by_number = numbering.items_by_number
    found = np.zeros((len(texts_UN), len(texts_UN[0]) if texts_UN else 0), dtype=np.int64)
    for row, texts in enumerate(texts_UN):
        for place, text in enumerate(texts):
            number = number_in(text)
            if number is not None and 0 < number < len(by_number):
                found[row, place] = by_number[number]
    return found


def listed_users(users: EvaluatedUsers, texts_UN: Sequence[Sequence[str]], numbering: Numbering) -> ListedUsers:
    """The lists of a batch by both protocols, read from texts as in the released mode; for `RankingHooks`.

    Args:
        users: of the batch.
        texts_UN: the beams of each user, best first: at least as many as a list has places.
        numbering: of the prompts.
    """
    beams_UN = torch.from_numpy(items_in(texts_UN, numbering)).to(users.targets_B.device)
    masked_UK, unmasked_UK = free_text_lists(beams_UN, users.seen_rows_S, users.seen_items_S)
    return ListedUsers(users, unmasked_UK, masked_UK)
