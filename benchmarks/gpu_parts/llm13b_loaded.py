"""What a step of the part `llm13b` leaves in its process for the next one: the subject and the language model."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any

from gpu_parts.bench import Bench

if TYPE_CHECKING:
    from gpu_parts.random_llm import Subject

_loaded: dict[str, Any] = {}
"""The subject and the language model, for the next step of this process; see `take_base` and `unload`."""


def subject_of(bench: Bench) -> Subject:
    """The subject, made once in this process."""
    from gpu_parts.random_llm import make_subject

    if "subject" not in _loaded:
        _loaded["subject"] = make_subject(bench)
    subject: Subject = _loaded["subject"]
    return subject


def take_base(bench: Bench, subject: Subject) -> Any:
    """The language model on the card, without LoRA: an earlier step's, or a new one.

    A step gives it back with `give_base` when it has ended well; after a failure nobody knows what is in it.
    """
    from gpu_parts.random_llm import random_base

    base = _loaded.pop("base", None)
    return random_base(subject.shape, bench.device) if base is None else base


def give_base(model: Any) -> None:
    """Takes LoRA off a model's language model and keeps that for the next step."""
    _loaded["base"] = model.adapted.unload()


def unload() -> None:
    """Frees the language model: another process is about to need the card, or nothing does any more."""
    _loaded.clear()
    gc.collect()
