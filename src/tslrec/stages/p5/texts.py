"""P5's inputs and outputs for the users and items of a data set.

Shapes: B texts, U users, I items (item 0 is padding), N interactions, K parts of the template with the most of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from tslrec.data.windows import index_in_group
from tslrec.stages.p5.pieces import Encoded, PieceEncoder, PieceTable
from tslrec.stages.p5.templates import ALL_TEMPLATES, DATASET, HISTORY, USER, parts_of

IS_USER, IS_HISTORY, NOTHING = -1, -2, -3
"""In the place of a piece's number: the user, the history, and what fills up the parts of a template."""


def user_text(user: int) -> str:
    """A user in a text; users are numbered from 1, in file order.

    Args:
        user: row in the data set, from 0.
    """
    return f"user_{user + 1}"


def item_text(code: str) -> str:
    """An item in a text.

    Args:
        code: the text of its code in the item index.
    """
    return f"item_{code}"


def following(item: str) -> str:
    """An item of a history after another one."""
    return f", {item}"


def output_text(dataset: str, item: str) -> str:
    """What the model shall answer."""
    return f"{dataset} {item}".strip()


def with_dataset(template: str, dataset: str) -> str:
    """A template with the data set's name."""
    return " ".join(dataset if word == DATASET else word for word in template.split())


def input_text(template: str, dataset: str, user: int, history: Sequence[str]) -> str:
    """A whole input.

    Args:
        template: one of `ALL_TEMPLATES`.
        dataset: the data set's name.
        user: row in the data set.
        history: the texts of its items.
    """
    words = {USER: user_text(user), HISTORY: " , ".join(history)}
    return " ".join(words.get(part, part) for part in parts_of(with_dataset(template, dataset)))


def words_of_texts(dataset: str) -> Iterator[str]:
    """Texts with all words that any input or output has, but for numbers and codes."""
    for template in ALL_TEMPLATES:
        yield with_dataset(template, dataset).replace(USER, "user_").replace(HISTORY, "item_")
    yield following("item_")
    yield output_text(dataset, "item_")


class TextWriter:
    """Writes inputs and outputs as tokens.

    Args:
        encoder: how the language model's tokenizer encodes pieces.
        dataset: the data set's name.
        num_users: U.
        item_codes: the text of each item's code, `[I + 1]`; that of item 0 is not used.

    Attributes:
        outputs: the piece of each item's output, by item number.
    """

    def __init__(self, encoder: PieceEncoder, dataset: str, num_users: int, item_codes: Sequence[str]) -> None:
        between: dict[tuple[str, bool], int] = {}
        plans = []
        for template in ALL_TEMPLATES:
            parts = parts_of(with_dataset(template, dataset))
            numbers = {USER: IS_USER, HISTORY: IS_HISTORY}
            plans.append(
                [
                    numbers[part] if part in numbers else between.setdefault((part, place == 0), len(between))
                    for place, part in enumerate(parts)
                ]
            )
        self.plans_K = np.full((len(plans), max(map(len, plans))), NOTHING, dtype=np.int64)
        for row, plan in zip(self.plans_K, plans, strict=True):
            row[: len(plan)] = plan
        users = [user_text(user) for user in range(num_users)]
        items = ["", *(item_text(code) for code in item_codes[1:])]
        self.users_begin = len(between)
        self.items_begin = self.users_begin + len(users)
        self.following_begin = self.items_begin + len(items)
        pieces = [
            *between,
            *((text, False) for text in (*users, *items)),
            *((following(item), False) for item in items),
        ]
        self.table = PieceTable(encoder, pieces, encoder.input_ending)
        answers = ["", *(output_text(dataset, item) for item in items[1:])]
        self.outputs = PieceTable(encoder, ((answer, False) for answer in answers), encoder.output_ending)

    def inputs(
        self,
        templates_B: NDArray[np.int64],
        users_B: NDArray[np.int64],
        starts_B: NDArray[np.int64],
        ends_B: NDArray[np.int64],
        items_N: NDArray[np.integer],
        most: int | None = None,
    ) -> Encoded:
        """Writes inputs.

        Args:
            templates_B: numbers of templates in `ALL_TEMPLATES`.
            users_B: rows of the users in the data set.
            starts_B: where each history begins in `items_N`.
            ends_B: where it ends, one item or more later.
            items_N: item ids of the data set.
            most: see `PieceTable.texts`.
        """
        plans_BK = self.plans_K[templates_B]
        counts_BK = np.where(plans_BK == NOTHING, 0, np.where(plans_BK == IS_HISTORY, (ends_B - starts_B)[:, None], 1))
        counts = counts_BK.ravel()
        kinds, rows = np.repeat(plans_BK.ravel(), counts), np.repeat(np.arange(len(users_B)), counts_BK.sum(axis=1))
        within = index_in_group(counts)
        pieces = kinds.copy()
        is_user, is_history = kinds == IS_USER, kinds == IS_HISTORY
        pieces[is_user] = self.users_begin + users_B[rows[is_user]]
        taken = items_N[starts_B[rows[is_history]] + within[is_history]]
        pieces[is_history] = np.where(within[is_history] > 0, self.following_begin, self.items_begin) + taken
        return self.table.texts(pieces, counts_BK.sum(axis=1), most)

    def labels(self, items_B: NDArray[np.integer]) -> Encoded:
        """Writes the outputs that name items."""
        return self.outputs.texts(items_B.astype(np.int64), np.ones(len(items_B), dtype=np.int64))

    def label_lengths(self, items_B: NDArray[np.integer]) -> NDArray[np.int64]:
        """The number of tokens of the outputs that name items, their ending included, int64 `[B]`."""
        offsets = self.outputs.offsets
        lengths_B: NDArray[np.int64] = offsets[items_B + 1] - offsets[items_B] + len(self.outputs.ending)
        return lengths_B

    def output_codes(self) -> list[tuple[int, ...]]:
        """The token ids of each item's output with its ending, by item number, for a trie; those of item 0 are none."""
        return [(), *self.outputs.codes()[1:]]
