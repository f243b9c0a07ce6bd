"""POD's prompts (Li et al. 2023): templates around the user and some items, and the bare form of both.

How many there are per task is the public code's (lileipisces/POD fd31697); the wording is our own. Reviews are none of
this framework's data, so the task of explaining is left out.
"""

from __future__ import annotations

from collections.abc import Sequence

from tslrec.system.errors import UserError

USER, ITEMS = "{user}", "{items}"
"""The fields of a template, each a word of its own: `user_7`, and `item_3 item_5 …`."""

SEQUENTIAL, TOP_N = 1, 2
"""The tasks' numbers in the public code, where 0 is the explanation; rows of prompt vectors are by these numbers."""
TASKS = (SEQUENTIAL, TOP_N)
NUM_TASKS = 3
"""Tasks that have prompt vectors, the explanation included."""

BARE = f"{USER} {ITEMS}"
"""The prompt of validation and test, and one of each task's in training: the prompt vectors say what the task is."""

TEMPLATES: dict[int, tuple[str, ...]] = {
    SEQUENTIAL: (
        f"So far {USER} has taken {ITEMS} in this order . Name the item that comes next .",
        f"{USER} went from one item to another : {ITEMS} . Which one follows ?",
        f"After {ITEMS} , what will {USER} choose ?",
        f"Continue the list of {USER} by one item : {ITEMS}",
        f"The latest items of {USER} are {ITEMS} . Tell the next one .",
        f"Here is a history , oldest first : {ITEMS} . It belongs to {USER} . What is its next entry ?",
        f"Predict what {USER} takes after {ITEMS} .",
        BARE,
    ),
    TOP_N: (
        f"One of these items suits {USER} : {ITEMS} . Which ?",
        f"Pick the item that {USER} would like most among {ITEMS} .",
        f"What should be shown to {USER} ? The choice is between {ITEMS} .",
        f"Select a single item for {USER} out of {ITEMS}",
        BARE,
    ),
}
"""By task; a training sample has one of them, drawn uniformly."""


def parts(template: str) -> list[str]:
    """A template cut at its fields: texts between them, and the fields themselves.

    Raises:
        UserError: if a field is missing, or glued to other characters, which would change the tokens of its words.
    """
    words = template.split()
    for field in (USER, ITEMS):
        if field not in words or template.count(field) != words.count(field):
            raise UserError(f"template '{template}': needs {field}, with a space on either side")
    found: list[str] = []
    for word in words:
        if word in (USER, ITEMS) or not found or found[-1] in (USER, ITEMS):
            found.append(word)
        else:
            found[-1] += f" {word}"
    return found


def written(template: str, user: int, items: Sequence[int]) -> str:
    """A whole prompt as text.

    Args:
        template: one of `TEMPLATES`.
        user: the user's number.
        items: the items' numbers, in order.
    """
    return template.replace(USER, f"user_{user}").replace(ITEMS, " ".join(f"item_{item}" for item in items))


def words() -> list[str]:
    """Every word of the templates, sorted, for a vocabulary that is made of them."""
    return sorted({word for texts in TEMPLATES.values() for text in texts for word in text.split()} - {USER, ITEMS})
