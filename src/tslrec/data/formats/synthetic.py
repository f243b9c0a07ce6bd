"""Generated data with a known ground truth: latent categories, users' preferences over them, and order effects.

Shapes: U users, I items, K categories.
"""

from __future__ import annotations

import numpy as np
import polars as pl

from tslrec.data.formats.base import RawInteractions
from tslrec.system.errors import UserError
from tslrec.system.shown_values import shown

MIN_LENGTH = 5
"""Items in the shortest history."""
CONCENTRATION = 0.15
"""Parameter of the Dirichlet distribution of preferences; so small that a user likes two or three categories."""
STAY = 0.5
"""Probability that the next item stays in the last item's category without a new draw from the user's preference."""
FOLLOW = 0.45
"""Probability that an item is followed by its successor, the next item of its category's ring."""
MOST = 10_000_000
"""The largest number of users and of items."""
MOST_DRAWN = 100_000_000
"""The largest number of preferences, and of interactions."""


def generate(
    *, num_users: int = 800, num_items: int = 240, num_categories: int = 8, average_length: float = 12.0, seed: int = 0
) -> RawInteractions:
    """Draws users' histories. No user has an item twice, and every item occurs.

    The items of a category form a ring. An item is followed by its successor in the ring with probability `FOLLOW`.
    Otherwise the category stays the same with probability `STAY` or is drawn from the user's preference, and the item
    is drawn from that category by popularity (Zipf). The length of a history is `MIN_LENGTH` plus a Poisson variable,
    at most half of the items.

    Args:
        num_users: U.
        num_items: I.
        num_categories: K.
        average_length: expected number of items in a history, where `MIN_LENGTH` and the cap allow it.
        seed: determines all draws.

    Raises:
        UserError: if a number is out of its bounds, or there are too few items or users for the categories and the
            length of the histories.
    """
    refuse_numbers(num_users, num_items, num_categories, average_length, seed)
    if num_items < 2 * num_categories or num_items < 2 * average_length or num_users < num_categories:
        raise UserError(
            f"data.reader: {num_items} items and {num_users} users are too few for {num_categories} categories and "
            f"histories of {average_length:g}; raise num_items or lower the others"
        )
    draw = np.random.default_rng(seed)
    categories_I = np.arange(num_items) % num_categories
    members = [np.flatnonzero(categories_I == category) for category in range(num_categories)]
    popularity = [draw.permutation(1.0 / np.arange(1, len(items) + 1)) for items in members]
    preferences_UK = draw.dirichlet(np.full(num_categories, CONCENTRATION), size=num_users)
    lengths_U = MIN_LENGTH + draw.poisson(max(0.0, average_length - MIN_LENGTH), size=num_users)
    lengths_U = np.minimum(lengths_U, num_items // 2)
    histories = [
        history(draw, int(length), preference, categories_I, members, popularity)
        for length, preference in zip(lengths_U, preferences_UK, strict=True)
    ]
    # Put each item that no user drew in front of the history of a user who likes its category.
    missing = np.setdiff1d(np.arange(num_items), np.concatenate(histories))
    for item in missing:
        user = int(np.argmax(preferences_UK[:, categories_I[item]] * draw.random(num_users)))
        histories[user] = [int(item), *histories[user]]
    raw_item = [f"item{item:04d}" for item in range(num_items)]
    rows = pl.DataFrame(
        {
            "user": [f"user{user:05d}" for user, items in enumerate(histories) for _ in items],
            "item": [raw_item[item] for items in histories for item in items],
        }
    ).with_columns((pl.int_range(pl.len(), dtype=pl.Int64) + 1).alias("line"))
    categories = dict(zip(raw_item, categories_I.tolist(), strict=True))
    titles = {item: f"category {category}, no. {item[-4:]}" for item, category in categories.items()}
    return RawInteractions(rows, categories, titles)


def refuse_numbers(num_users: int, num_items: int, num_categories: int, average_length: float, seed: int) -> None:
    """Refuses numbers of which no data can be made.

    Raises:
        UserError: naming the number and its bounds.
    """
    counts = {"num_users": num_users, "num_items": num_items, "num_categories": num_categories}
    for name, count in counts.items():
        if not 1 <= count <= MOST:
            raise UserError(f"data.reader.{name}={shown(count)}: must be from 1 to {MOST}")
    if not average_length > 0:
        raise UserError(f"data.reader.average_length={shown(average_length)}: must be above 0")
    if seed < 0:
        raise UserError(f"data.reader.seed={shown(seed)}: must be 0 or more")
    for name, each in {"num_categories": num_categories, "average_length": average_length}.items():
        if num_users * each > MOST_DRAWN:
            raise UserError(
                f"data.reader: num_users={num_users} times {name}={shown(each)} is above {MOST_DRAWN}, too many to "
                "draw; lower one of them"
            )


def history(
    draw: np.random.Generator,
    length: int,
    preference_K: np.ndarray,
    categories_I: np.ndarray,
    members: list[np.ndarray],
    popularity: list[np.ndarray],
) -> list[int]:
    """Draws one user's items in time order.

    Args:
        draw: the random generator.
        length: number of items.
        preference_K: the user's probability of each category.
        categories_I: category of each item.
        members: the items of each category, ascending: its ring.
        popularity: unnormalised popularity of each of these items.
    """
    drawn: list[int] = []
    seen: set[int] = set()
    while len(drawn) < length:
        category = -1
        if drawn:
            last = drawn[-1]
            ring = members[categories_I[last]]
            successor = int(ring[(int(np.searchsorted(ring, last)) + 1) % len(ring)])
            if successor not in seen and draw.random() < FOLLOW:
                drawn.append(successor)
                seen.add(successor)
                continue
            if draw.random() < STAY:
                category = int(categories_I[last])
        if category < 0:
            category = int(draw.choice(len(preference_K), p=preference_K))
        weights = np.where([int(item) in seen for item in members[category]], 0.0, popularity[category])
        if weights.sum() == 0:
            # The user has every item of the category already: draw any other item.
            item = int(draw.choice([item for item in range(len(categories_I)) if item not in seen]))
        else:
            item = int(draw.choice(members[category], p=weights / weights.sum()))
        drawn.append(item)
        seen.add(item)
    return drawn
