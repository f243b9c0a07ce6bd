"""What P5 asks (Geng et al. 2022; as in OpenP5, commit 7f11038, in words of our own): ten seen templates and one unseen
one per task.

A template is plain words and fields. Each field is a word of its own, so that a text has the same tokens as its words
one after the other. Neither a user nor a history is the first word, which some tokenizers encode in another way.
"""

from __future__ import annotations

from dataclasses import dataclass

from tslrec.settings.rivals import P5_TASKS

DATASET, USER, HISTORY = "{dataset}", "{user}", "{history}"
"""The fields: the data set's name, `user_1`, and `item_… , item_…`."""

FIELDS = (DATASET, USER, HISTORY)


@dataclass(frozen=True)
class Templates:
    """The templates of a task.

    Attributes:
        seen: those of the training; the first one is also evaluated.
        unseen: one that is only evaluated.
    """

    seen: tuple[str, ...]
    unseen: str


SEQUENTIAL = Templates(
    seen=(
        "In {dataset} {user} bought {history} one after the other . Which item follows ?",
        "The {dataset} purchases of {user} so far are {history} . Name the next one :",
        "{dataset} {user} has chosen {history} . What will the same person choose now ?",
        "Given the ordered list {history} of {dataset} {user} , predict the item that comes next .",
        "After {history} , what does {dataset} {user} most likely want ?",
        "Continue the sequence {history} for {dataset} {user} with one more item .",
        "A shop in {dataset} knows that {user} took {history} before . What should it offer ?",
        "Until today {dataset} {user} got {history} . Find tomorrow's item .",
        "Knowing that {dataset} {user} went through {history} , recommend a single new item .",
        "Look at the history {history} of {dataset} {user} and write down its continuation .",
    ),
    unseen="Which item would {dataset} {user} add to {history} next ?",
)

STRAIGHTFORWARD = Templates(
    seen=(
        "Which item fits {dataset} {user} ?",
        "Recommend an item to {dataset} {user} .",
        "Name something in {dataset} that {user} would like .",
        "What should a shop offer to {dataset} {user} ?",
        "Find one item for {dataset} {user} .",
        "Choose from {dataset} what {user} will want :",
        "What is {dataset} {user} going to buy ?",
        "Tell which item suits the taste of {dataset} {user} .",
        "Suggest an item that {dataset} {user} may take .",
        "Of all items , which one does {dataset} {user} prefer ?",
    ),
    unseen="What could be a good item for {dataset} {user} ?",
)

TEMPLATES = dict(zip(P5_TASKS, (SEQUENTIAL, STRAIGHTFORWARD), strict=True))
"""The templates of each task."""

NUM_SEEN = len(SEQUENTIAL.seen)
"""Seen templates of each task."""

SEEN, UNSEEN = "seen:0", "unseen:0"
"""The two evaluations of the sequential task: its first seen template, and its unseen one."""

ALL_TEMPLATES = tuple(text for task in TEMPLATES.values() for text in (*task.seen, task.unseen))
"""The texts of all templates, by their number: task by task the seen ones, then the unseen one."""


def template_number(task: str, place: int) -> int:
    """The number of a template in `ALL_TEMPLATES`.

    Args:
        task: one of `P5_TASKS`.
        place: of a seen template, from 0; `NUM_SEEN` for the unseen one.
    """
    return P5_TASKS.index(task) * (NUM_SEEN + 1) + place


EVALUATED = {SEEN: template_number("sequential", 0), UNSEEN: template_number("sequential", NUM_SEEN)}
"""The number of the template of each evaluation."""


def parts_of(template: str) -> list[str]:
    """A template as fields and the texts between them."""
    parts: list[str] = []
    for word in template.split():
        if word in FIELDS or not parts or parts[-1] in FIELDS:
            parts.append(word)
        else:
            parts[-1] = f"{parts[-1]} {word}"
    return parts
