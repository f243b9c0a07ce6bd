"""The profiles of devices, and what the configuration may say of others."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from tslrec.settings.trainer import TrainerConfig
from tslrec.system.device_profiles import DEVICES, GIVEN, profile_of
from tslrec.system.errors import UserError


def test_the_default_is_a_profile() -> None:
    assert TrainerConfig().device in DEVICES


@pytest.mark.parametrize("name", sorted(DEVICES))
def test_every_number_of_a_profile_has_a_source_and_is_a_rate(name: str) -> None:
    profile = profile_of(name)
    for each in fields(profile):
        value = getattr(profile, each.name)
        if each.name in ("title", "sources") or value is None:
            continue
        assert value > 0
        assert profile.source(each.name) != GIVEN, each.name
    assert profile.step_share <= 1


def test_measured_and_published_numbers_are_told_apart() -> None:
    assert DEVICES["h100"].source("bf16_tflops") == "measured"
    assert DEVICES["h100"].source("link_gbs") == "data sheet"
    assert DEVICES["h100"].source("step_share") == "assumed"
    assert DEVICES["a100"].source("bf16_tflops") == "data sheet"
    # Half of an A100's peak and more would be too much to expect of a step.
    assert DEVICES["a100"].bf16_tflops * DEVICES["a100"].step_share == pytest.approx(0.8 * 312 * 0.45, rel=1e-3)
    assert DEVICES["cpu"].source("fp32_tflops") == "measured"


def test_an_unknown_device_is_refused_in_one_line_with_the_names() -> None:
    with pytest.raises(UserError) as refused:
        profile_of("gtx1080")
    text = str(refused.value)
    assert "\n" not in text
    assert text.startswith("trainer.device=gtx1080: must be one of a100, cpu, h100, h200, l40s, rtx4090")


def test_a_device_of_ones_own_is_used_as_stated() -> None:
    profile = profile_of({"title": "Card", "bf16_tflops": 100, "fp32_tflops": 40.5, "memory_gib": 16, "link_gbs": None})
    assert (profile.title, profile.bf16_tflops, profile.fp32_tflops) == ("Card", 100, 40.5)
    assert (profile.memory_gib, profile.link_gbs, profile.memory_gbs) == (16, None, None)
    assert profile.source("bf16_tflops") == "given"
    assert profile.source("step_share") == "assumed"


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({"bf16_tflops": 100}, "fp32_tflops not given"),
        ({"bf16_tflops": 100, "fp32_tflops": 50, "tflops": 3}, "unknown tflops; it may set title, bf16_tflops"),
        ({"bf16_tflops": 0, "fp32_tflops": 50}, "bf16_tflops=0: must be a number above 0"),
        ({"bf16_tflops": "fast", "fp32_tflops": 50}, "bf16_tflops=fast: must be a number"),
        ({"bf16_tflops": float("inf"), "fp32_tflops": 50}, "bf16_tflops=inf: must be a number"),
        (
            {"bf16_tflops": 1, "fp32_tflops": 1, "step_share": 1.5},
            "must be a number above 0 and at most 1",
        ),
        ({"bf16_tflops": 1, "fp32_tflops": None}, "fp32_tflops not given"),
    ],
)
def test_numbers_that_cannot_be_are_refused(numbers: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=r"^trainer\.device") as refused:
        profile_of(numbers)
    assert words in str(refused.value)
