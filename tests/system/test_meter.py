"""A stage's measured memory does not include the model of the stage before."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest
import torch

from tslrec.system.meter import Meter


class Model:
    """A reference cycle of 120 MB, like a trainer and its module that refer to each other."""

    def __init__(self) -> None:
        self.weights = torch.ones(30_000_000)
        self.myself = self


@pytest.fixture
def no_automatic_collection() -> Iterator[None]:
    """Switches automatic garbage collection off."""
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_automatic_collection")
def test_a_new_meter_frees_the_previous_stages_model_and_does_not_count_it() -> None:
    before = Meter().facts()["peak_memory_gib"]
    model = Model()
    reference = weakref.ref(model)
    del model
    assert reference() is not None
    meter = Meter()
    assert reference() is None
    assert meter.facts()["peak_memory_gib"] < before + 0.05
