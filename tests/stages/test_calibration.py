"""The calibrated temperature: where the cross-entropy is least, of scores of any scale, and the same after a resume."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from support.interactions import make_interactions
from tslrec.config import Config
from tslrec.data.interactions import Interactions
from tslrec.settings.choices import MethodConfig
from tslrec.settings.data import DataConfig
from tslrec.settings.trainer import TrainerConfig
from tslrec.settings.training import TrainingConfig
from tslrec.stages import calibration
from tslrec.stages.calibration import BOUNDS, best_factor, calibrated_temperature
from tslrec.stages.restored import Restored
from tslrec.system.errors import UserError

ITEMS = 30


def market() -> Interactions:
    """60 users with 3 to 9 items each."""
    draw = np.random.default_rng(0)
    return make_interactions([draw.integers(1, ITEMS + 1, 3 + user % 7).tolist() for user in range(60)], ITEMS)


def drawn(seed: int, scale: float, users: int = 300, items: int = 40) -> tuple[Tensor, Tensor]:
    """Scores, and targets drawn from the softmax of the scores divided by `scale`: that is their temperature."""
    draw = torch.Generator().manual_seed(seed)
    logits_TI = 2 * torch.randn(users, items, generator=draw)
    targets_T = torch.multinomial(logits_TI.softmax(dim=1), 1, generator=draw)[:, 0]
    return logits_TI * scale, targets_T


def loss(scores_TI: Tensor, targets_T: Tensor, factor: float) -> float:
    return float(F.cross_entropy(scores_TI.double() * factor, targets_T))


@given(seed=st.integers(0, 1000), scale=st.floats(0.01, 100))
@settings(max_examples=40, deadline=None)
def test_no_other_factor_fits_better(seed: int, scale: float) -> None:
    scores_TI, targets_T = drawn(seed, scale)
    factor = best_factor(scores_TI, targets_T)
    least = loss(scores_TI, targets_T, factor)
    assert all(loss(scores_TI, targets_T, factor * change) >= least - 1e-7 for change in (0.5, 0.99, 1.01, 2.0))


def test_it_finds_the_temperature_of_the_draw() -> None:
    assert best_factor(*drawn(0, scale=8.0, users=20_000)) == pytest.approx(1 / 8, rel=0.03)


def test_targets_that_always_or_never_come_first_end_at_the_bounds() -> None:
    scores_TI = torch.arange(10.0).repeat(5, 1)
    assert best_factor(scores_TI, torch.full((5,), 9)) > 10
    assert best_factor(scores_TI, torch.full((5,), 0)) == pytest.approx(BOUNDS[0], rel=1e-3)


def linear(table_IE: Tensor) -> Restored:
    """Scores items by the vector of the user's last item."""

    def encode(items_BL: Tensor, lengths_B: Tensor) -> Tensor:
        return table_IE[items_BL.gather(1, lengths_B[:, None] - 1)[:, 0]]

    return Restored(encode, table_IE, max_len=10)


def config() -> Config:
    return Config(
        method=MethodConfig("distilled", []),
        data=DataConfig("market", "market", {}),
        model={},
        fusion={},
        training=TrainingConfig(),
        trainer=TrainerConfig("cpu"),
        preset="tests",
    )


def test_validation_items_decide_and_few_users_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    interactions = market()
    table_IE = torch.randn(interactions.num_items + 1, 4, generator=torch.Generator().manual_seed(0))
    teacher = linear(table_IE)
    users = interactions.evaluated_users
    ends = interactions.offsets[users + 1]
    before, targets = interactions.items[ends - 3], torch.from_numpy(interactions.items[ends - 2].astype("int64")) - 1
    scores_TI = table_IE[before.astype("int64")] @ table_IE[1:].T
    assert calibrated_temperature(teacher, interactions, config()) == pytest.approx(1 / best_factor(scores_TI, targets))
    monkeypatch.setattr(calibration, "SCORE_BYTES", 4 * interactions.num_items * 20)
    scores, found = calibration.validation_scores(teacher, interactions, config())
    assert scores.shape == (20, interactions.num_items)
    assert found.shape == (20,)


@pytest.mark.parametrize(("value", "message"), [(torch.nan, "not finite"), (0.0, "gives all items the same score")])
def test_a_teacher_that_says_nothing_is_refused(value: float, message: str) -> None:
    interactions = market()
    with pytest.raises(UserError, match=f"^soft_targets: the teacher .*{message}"):
        calibrated_temperature(linear(torch.full((interactions.num_items + 1, 3), value)), interactions, config())
