"""What a stage cost is its own."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest
import torch

from tslrec.measuring import Meter


class Model:
    """Refers to itself, as a trainer and its module do to each other."""

    def __init__(self) -> None:
        self.weights = torch.ones(30_000_000)
        self.myself = self


@pytest.fixture
def by_hand() -> Iterator[None]:
    """No cycle is looked for but where it is asked for."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("by_hand")
def test_the_model_of_the_stage_before_is_gone_and_not_counted() -> None:
    before = Meter().facts()["peak_memory_gib"]
    model = Model()
    gone = weakref.ref(model)
    del model
    assert gone() is not None
    meter = Meter()
    assert gone() is None
    assert meter.facts()["peak_memory_gib"] < before + 0.05
