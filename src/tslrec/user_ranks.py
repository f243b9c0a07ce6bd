"""Where each user's target stood in the one test of a stage: what paired statistics and user groups are made of.

Shapes: B users of a batch, U users of the data set, T users that were tested.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from tslrec.metrics import PROTOCOLS
from tslrec.ranks import sum_over_processes

RANKS = "ranks.safetensors"


class UserRanks:
    """Collects ranks batch by batch, each process those of its own users."""

    def __init__(self) -> None:
        self.parts: list[tuple[Tensor, Tensor]] = []

    def add(self, users_B: Tensor, masked_B: Tensor, unmasked_B: Tensor) -> None:
        """Keeps ranks as `metrics.target_ranks` gives them.

        Args:
            users_B: rows of the users in the data set.
            masked_B: their targets' ranks, history masked.
            unmasked_B: not masked.
        """
        self.parts.append((users_B.cpu(), torch.stack([masked_B, unmasked_B]).double().cpu()))

    def gather(self, num_users: int, device: torch.device) -> dict[str, Tensor]:
        """All that any process has, which all of them must call.

        Args:
            num_users: U.
            device: that this process computes on.

        Returns:
            `users`, int64 `[T]`, rising, and for each protocol float32 `[T]`: ranks from 1, infinite where a target
            can never be recommended. Halves and whole numbers below 2²³ are exact.
        """
        # A user is in one process only, and no rank is 0.
        ranks_PU = torch.zeros(len(PROTOCOLS), num_users, dtype=torch.float64)
        for users_B, ranks_PB in self.parts:
            ranks_PU[:, users_B] = ranks_PB
        ranks_PU = sum_over_processes(ranks_PU, device)
        users_T = ranks_PU[0].nonzero()[:, 0]
        ranks = {name: ranks_PU[row, users_T].float() for row, name in enumerate(PROTOCOLS)}
        return {"users": users_T, **ranks}


def save_ranks(ranks: dict[str, Tensor], folder: Path) -> None:
    """Writes `ranks.safetensors` into a folder."""
    from safetensors.torch import save_file

    save_file(ranks, folder / RANKS)
