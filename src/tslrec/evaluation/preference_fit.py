"""How well predicted preferences fit the true ones: squared error, top category, calibration.

Everything is computed from sums over users, so that it is exact over batches, interruptions and processes.

Shapes: B users of a batch, K categories, N bins.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tslrec.system.processes import sum_over_processes

NUM_BINS = 10
"""Bins of predicted shares: (1/2, 1], (1/4, 1/2] and so on, each half as wide as the one before; the last one reaches
down to 0. With dozens of categories nearly all shares are small."""

NUM_PLAIN = 4
"""Sums that are not by category: squared error, the constant predictor's squared error, users whose top category is
right, users."""


class PreferenceFit:
    """The sums over users, and the measures that follow from them.

    Args:
        num_clusters: K.
        sums: float64 `[size(K)]`, of users that were counted before; this tensor is kept and added to in place. None:
            no users yet.
    """

    def __init__(self, num_clusters: int, sums: Tensor | None = None) -> None:
        self.num_clusters = num_clusters
        self.sums = torch.zeros(self.size(num_clusters), dtype=torch.float64) if sums is None else sums

    @staticmethod
    def size(num_clusters: int) -> int:
        """Number of sums for K categories."""
        return NUM_PLAIN + 2 * num_clusters * NUM_BINS

    def add(self, logits_BK: Tensor, targets_BK: Tensor, errors_B: Tensor, constant_B: Tensor) -> None:
        """Counts the users of a batch.

        Args:
            logits_BK: of the predicted preferences, before the softmax.
            targets_BK: the users' true preferences.
            errors_B: squared errors of the prediction (Eq. 3).
            constant_B: squared errors of the constant predictor.
        """
        logits_BK, targets_BK = logits_BK.detach(), targets_BK.detach()
        right_B = top_category_is_right(logits_BK, targets_BK)
        plain = torch.stack([each.detach().double().sum() for each in (errors_B, constant_B, right_B)])
        self.sums[: NUM_PLAIN - 1] += plain.cpu()
        self.sums[NUM_PLAIN - 1] += len(errors_B)
        predicted_BK = logits_BK.float().softmax(dim=1).double().cpu()
        # Values that are not finite are counted, too; they are refused elsewhere (`NonFiniteGuard`).
        bins_BK = predicted_BK.log2().neg().floor().nan_to_num().clamp(0, NUM_BINS - 1).long()
        places_BK = torch.arange(self.num_clusters) * NUM_BINS + bins_BK
        for sums_KN, shares_BK in zip(self._binned(), (predicted_BK, targets_BK.double().cpu()), strict=True):
            sums_KN.view(-1).index_add_(0, places_BK.flatten(), shares_BK.flatten())

    def over_processes(self, device: torch.device) -> PreferenceFit:
        """The sums over the users of all processes; all of them must call it."""
        return PreferenceFit(self.num_clusters, sum_over_processes(self.sums, device))

    @property
    def users(self) -> int:
        """Number of users that were counted."""
        return int(self.sums[NUM_PLAIN - 1])

    def metrics(self) -> dict[str, float]:
        """Means over users.

        Returns:
            `loss`: the squared error; `constant_loss`: that of the constant predictor; `explained_share`: by what share
            the first is smaller than the second; `top_category_right`: share of users whose likeliest category is
            right; `calibration_error`: the mean over categories (see `calibration`).
        """
        error, constant, right, users = self.sums[:NUM_PLAIN].tolist()
        return {
            "loss": error / users,
            "constant_loss": constant / users,
            "explained_share": 1 - error / constant if constant else 0.0,
            "top_category_right": right / users,
            "calibration_error": float(self._errors().mean()),
        }

    def calibration(self) -> list[dict[str, float]]:
        """For each category, the mean `predicted` share, the mean `actual` share, and the calibration `error`.

        The error is the difference of the two within the bin of a user's predicted share, averaged over users: the
        classwise expected calibration error (Kull et al. 2019), with shares in the place of classes. It can be large
        although the means are equal: such a predictor is over- or underconfident.
        """
        predicted_K, actual_K = (sums_KN.sum(dim=1) / self.users for sums_KN in self._binned())
        columns = {"predicted": predicted_K, "actual": actual_K, "error": self._errors()}
        return [{name: float(values_K[k]) for name, values_K in columns.items()} for k in range(self.num_clusters)]

    def report(self, measured_on: str) -> dict[str, Any]:
        """The content of the calibration file.

        Args:
            measured_on: says which users were counted.
        """
        return {
            "measured_on": measured_on,
            "users": self.users,
            "error": float(self._errors().mean()),
            "categories": self.calibration(),
        }

    def _binned(self) -> tuple[Tensor, Tensor]:
        """Views of the sums of predicted and of actual shares, by category and bin of the prediction, `[K, N]` each."""
        predicted_KN, actual_KN = self.sums[NUM_PLAIN:].view(2, self.num_clusters, NUM_BINS)
        return predicted_KN, actual_KN

    def _errors(self) -> Tensor:
        """The calibration error of each category, `[K]`."""
        predicted_KN, actual_KN = self._binned()
        return (predicted_KN - actual_KN).abs().sum(dim=1) / self.users


def squared_error(logits_BK: Tensor, targets_BK: Tensor) -> Tensor:
    """The squared error of each user's predicted preferences, summed over categories (Eq. 2 and 3), float32 `[B]`."""
    return (logits_BK.float().softmax(dim=1) - targets_BK).square().sum(dim=1)


def top_category_is_right(logits_BK: Tensor, targets_BK: Tensor) -> Tensor:
    """Whether a user's likeliest predicted category is (one of) the most frequent one(s), bool `[B]`."""
    chosen_B = targets_BK.gather(1, logits_BK.argmax(dim=1, keepdim=True))[:, 0]
    return chosen_B == targets_BK.amax(dim=1)
