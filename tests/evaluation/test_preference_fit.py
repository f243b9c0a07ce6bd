"""What is said of how predicted preferences fit: errors, likeliest categories, calibration."""

from __future__ import annotations

import pytest
import torch

from tslrec.evaluation.preference_fit import PreferenceFit, squared_error, top_category_is_right


def test_the_error_is_summed_over_categories() -> None:
    logits_BK = torch.tensor([[0.0, 0.0], [50.0, 0.0]])
    targets_BK = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    torch.testing.assert_close(squared_error(logits_BK, targets_BK), torch.tensor([0.5, 2.0]))


def test_any_of_the_most_frequent_categories_is_right() -> None:
    logits_BK = torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    targets_BK = torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.5, 0.0]])
    assert top_category_is_right(logits_BK, targets_BK).tolist() == [True, False]


def test_a_mean_that_is_right_can_be_too_sure_of_itself() -> None:
    fit = PreferenceFit(2)
    # Two users who are half one and half the other, of whom each is taken for one of the two.
    logits_BK = torch.tensor([[0.9, 0.1], [0.1, 0.9]]).log()
    targets_BK = torch.full((2, 2), 0.5)
    for user in range(2):
        one = slice(user, user + 1)
        errors_B = squared_error(logits_BK[one], targets_BK[one])
        fit.add(logits_BK[one], targets_BK[one], errors_B, torch.tensor([0.64]))
    for category in fit.calibration():
        assert category == pytest.approx({"predicted": 0.5, "actual": 0.5, "error": 0.4})
    expected = {"loss": 0.32, "constant_loss": 0.64, "explained_share": 0.5, "top_category_right": 1.0}
    assert fit.metrics() == pytest.approx({**expected, "calibration_error": 0.4})


def test_a_share_of_exactly_zero_or_one_has_a_bin() -> None:
    fit = PreferenceFit(2)
    sure_BK = torch.tensor([[200.0, -200.0]])
    fit.add(sure_BK, torch.tensor([[1.0, 0.0]]), torch.zeros(1), torch.ones(1))
    assert fit.metrics()["calibration_error"] == 0
