"""The benchmark of sweeps: how often each stage has to be computed, and that it refuses figures of anything else."""

from __future__ import annotations

from typing import Any

import pytest

from sweep import expected, figures

SECONDS = {"shared": 100.0, "alone": 150.0, "rerun": 5.0}


def manifests(*, shared: bool) -> list[dict[str, Any]]:
    return [{"stage": stage, "wall_seconds": 0.5} for stage in expected(shared=shared).elements()]


def test_shared_stages_are_counted_once() -> None:
    found = {n: v for n, v, _ in figures(SECONDS, {"shared": manifests(shared=True), "alone": manifests(shared=False)})}
    assert (found["sweep_runs"], found["sweep_stages_shared"], found["sweep_stages_alone"]) == (24, 49, 96)
    assert (found["sweep_in_stages_alone"], found["sweep_speedup"]) == (48, 1.5)


def test_a_stage_that_was_computed_twice_is_refused() -> None:
    twice = [*manifests(shared=True), {"stage": "backbone", "wall_seconds": 0.5}]
    with pytest.raises(RuntimeError, match="shared: "):
        figures(SECONDS, {"shared": twice, "alone": manifests(shared=False)})
