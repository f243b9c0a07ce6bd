"""How well predicted preferences fit the users': squared error, likeliest category, calibration.

All of it follows from sums over users, so that it is exact over batches, interruptions and processes.

Shapes: B users of a batch, K categories, N bins.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from tslrec.ranks import sum_over_processes

NUM_BINS = 10
"""Of predicted shares, each half as wide as the one above: (1/2, 1], (1/4, 1/2] and so on, the last one down to 0.
With dozens of categories nearly all shares are small."""

NUM_PLAIN = 4


class PreferenceFit:
    """Sums over users.

    Args:
        num_clusters: K.
        sums: float64 `[size(K)]`, of users that were counted before; kept, and added to in place.
    """

    def __init__(self, num_clusters: int, sums: Tensor | None = None) -> None:
        self.num_clusters = num_clusters
        self.sums = torch.zeros(self.size(num_clusters), dtype=torch.float64) if sums is None else sums

    @staticmethod
    def size(num_clusters: int) -> int:
        """How many sums there are."""
        return NUM_PLAIN + 2 * num_clusters * NUM_BINS

    def add(self, logits_BK: Tensor, targets_BK: Tensor, errors_B: Tensor, constant_B: Tensor) -> None:
        """Counts users.

        Args:
            logits_BK: before the softmax.
            targets_BK: their preferences.
            errors_B: squared errors (Eq. 3).
            constant_B: those of the constant predictor.
        """
        logits_BK, targets_BK = logits_BK.detach(), targets_BK.detach()
        right_B = top_category_is_right(logits_BK, targets_BK)
        plain = torch.stack([each.detach().double().sum() for each in (errors_B, constant_B, right_B)])
        self.sums[: NUM_PLAIN - 1] += plain.cpu()
        self.sums[NUM_PLAIN - 1] += len(errors_B)
        predicted_BK = logits_BK.float().softmax(dim=1).double().cpu()
        # What is not finite is counted, too, and refused by others.
        bins_BK = predicted_BK.log2().neg().floor().nan_to_num().clamp(0, NUM_BINS - 1).long()
        places_BK = torch.arange(self.num_clusters) * NUM_BINS + bins_BK
        for sums_KN, shares_BK in zip(self._binned(), (predicted_BK, targets_BK.double().cpu()), strict=True):
            sums_KN.view(-1).index_add_(0, places_BK.flatten(), shares_BK.flatten())

    def over_processes(self, device: torch.device) -> PreferenceFit:
        """The same over the users of all processes, which all get."""
        return PreferenceFit(self.num_clusters, sum_over_processes(self.sums, device))

    @property
    def users(self) -> int:
        """How many were counted."""
        return int(self.sums[NUM_PLAIN - 1])

    def metrics(self) -> dict[str, float]:
        """Means over users.

        Returns:
            `loss` and `constant_loss` (squared errors), `explained_share` of the latter, `top_category_right`, and
            `calibration_error` (see `calibration`), the mean over categories.
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
        """Of each category, the mean share that was predicted, the actual one, and the calibration error.

        That error is the mean, over the users, of how far the two lie apart in the bin of the user's predicted share:
        the classwise expected calibration error (Kull et al. 2019) with shares in the place of classes. A predictor
        whose mean is right can have it: it may be too sure of itself.
        """
        predicted_K, actual_K = (sums_KN.sum(dim=1) / self.users for sums_KN in self._binned())
        columns = {"predicted": predicted_K, "actual": actual_K, "error": self._errors()}
        return [{name: float(values_K[k]) for name, values_K in columns.items()} for k in range(self.num_clusters)]

    def report(self, measured_on: str) -> dict[str, Any]:
        """What is written of the calibration.

        Args:
            measured_on: which users.
        """
        return {
            "measured_on": measured_on,
            "users": self.users,
            "error": float(self._errors().mean()),
            "categories": self.calibration(),
        }

    def _binned(self) -> tuple[Tensor, Tensor]:
        """Sums of predicted and of actual shares by category and bin of the prediction, each `[K, N]`, views."""
        predicted_KN, actual_KN = self.sums[NUM_PLAIN:].view(2, self.num_clusters, NUM_BINS)
        return predicted_KN, actual_KN

    def _errors(self) -> Tensor:
        predicted_KN, actual_KN = self._binned()
        return (predicted_KN - actual_KN).abs().sum(dim=1) / self.users


def squared_error(logits_BK: Tensor, targets_BK: Tensor) -> Tensor:
    """Of each user, summed over categories (Eq. 2 and 3), float32 `[B]`."""
    return (logits_BK.float().softmax(dim=1) - targets_BK).square().sum(dim=1)


def top_category_is_right(logits_BK: Tensor, targets_BK: Tensor) -> Tensor:
    """Whether the likeliest category is one of the user's most frequent ones, bool `[B]`."""
    chosen_B = targets_BK.gather(1, logits_BK.argmax(dim=1, keepdim=True))[:, 0]
    return chosen_B == targets_BK.amax(dim=1)
