"""What the knowledge of an item keeps of the backbone's embedding."""

from __future__ import annotations

import numpy as np
import pytest

from tslrec.evaluation.neighbours import linearly_explained


def test_a_linear_map_gives_back_what_it_can_and_no_noise() -> None:
    draw = np.random.default_rng(1)
    own_ID = draw.normal(size=(2000, 4))
    mapped_IH = 5 + own_ID @ draw.normal(size=(4, 12))
    assert linearly_explained(own_ID, mapped_IH) == pytest.approx(1, abs=0.005)
    half = np.concatenate([own_ID[:, :2], draw.normal(size=(2000, 10))], axis=1)
    assert linearly_explained(own_ID, half) == pytest.approx(0.5, abs=0.05)
    # Fitted to noise, it explains nothing of the items that it has not seen.
    assert linearly_explained(own_ID, draw.normal(size=(2000, 12))) < 0.005
