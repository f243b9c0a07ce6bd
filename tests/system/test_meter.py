"""A stage's measured memory is its own; its manifest says on what it ran, also without an installation."""

from __future__ import annotations

import gc
import importlib.metadata
import tomllib
import weakref
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from support.checkout import CHECKOUT
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


def test_a_machine_without_a_gpu_in_use_has_no_card() -> None:
    facts = Meter().facts()
    assert "peak_device_memory_gib" not in facts
    assert "card" not in facts["machine"]
    assert not torch.cuda.is_initialized()


class Card(SimpleNamespace):
    """`torch.cuda` of a process that uses a GPU of 80 GiB and holds 3 GiB of it."""

    name, total_memory = "NVIDIA Test 80GB", 80 * 2**30
    resets = 0

    def is_initialized(self) -> bool:
        return True

    def reset_peak_memory_stats(self) -> None:
        self.resets += 1

    def max_memory_allocated(self) -> int:
        return 3 * 2**30

    def current_device(self) -> int:
        return 0

    def get_device_properties(self, device: int) -> Card:
        return self


def test_a_stage_records_its_card_and_the_most_that_it_held_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    card = Card()
    monkeypatch.setattr(torch, "cuda", card)
    meter = Meter()
    assert card.resets == 1
    facts = meter.facts()
    assert facts["peak_device_memory_gib"] == 3
    assert facts["machine"].items() >= {"card": "NVIDIA Test 80GB", "card_memory_gib": 80.0}.items()
    meter.continue_from({**facts, "peak_device_memory_gib": 5.5})
    assert meter.facts()["peak_device_memory_gib"] == 5.5
    # A checkpoint that was written on a CPU does not say how much of a GPU it held.
    meter.continue_from({"wall_seconds": 1.0, "peak_memory_gib": 1.0, "interruptions": 0})
    assert meter.facts()["peak_device_memory_gib"] == 3


def test_the_project_has_its_version_also_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_is_installed(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    installed = importlib.metadata.version
    monkeypatch.setattr(importlib.metadata, "version", none_is_installed)
    packages = Meter().facts()["packages"]
    declared = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    assert packages.pop("tslrec") == declared
    assert set(packages.values()) == {None}
    monkeypatch.setattr(importlib.metadata, "version", installed)
    assert torch.__version__.startswith(Meter().facts()["packages"]["torch"])
