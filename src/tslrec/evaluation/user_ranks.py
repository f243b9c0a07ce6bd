"""The rank of each tested user's target, kept for paired statistics and for metrics of user groups.

Shapes: B users of a batch, U users of the data set, T tested users, P ranking protocols.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from tslrec.evaluation.protocols import PROTOCOLS
from tslrec.system.processes import sum_over_processes

RANKS = "ranks.safetensors"
"""The file of a recommender's ranks: `users` `[T]`, and for each protocol the ranks of their targets, `[T]`."""


class UserRanks:
    """Collects ranks batch by batch; each process collects those of its own users."""

    def __init__(self) -> None:
        self.parts: list[tuple[Tensor, Tensor]] = []

    def add(self, users_B: Tensor, masked_B: Tensor, unmasked_B: Tensor) -> None:
        """Keeps the ranks of a batch, as `ranking.target_ranks` gives them.

        Args:
            users_B: rows of the users in the data set.
            masked_B: ranks of their targets, from 1, history masked.
            unmasked_B: ranks of their targets, history not masked.
        """
        # They stay on the device: copying them to the host would make each batch wait for the ones before it.
        self.parts.append((users_B, torch.stack([masked_B, unmasked_B]).double()))

    def gather(self, num_users: int, device: torch.device) -> dict[str, Tensor]:
        """The ranks of all processes; all of them must call it.

        Args:
            num_users: U.
            device: on which this process computes.

        Returns:
            `users`, rows of the tested users in the data set, int64 `[T]`, rising; and for each protocol the ranks of
            their targets, float32 `[T]`, from 1, infinite where a target can never be recommended. Halves and whole
            numbers below 2²³ are exact.
        """
        # A user is tested by one process only, and no rank is 0, so that sums over processes keep every rank.
        return by_protocol(sum_over_processes(self.own(num_users), device))

    def alone(self, num_users: int) -> dict[str, Tensor]:
        """As `gather`, of this process alone: no other one needs to call it.

        Args:
            num_users: U.
        """
        return by_protocol(self.own(num_users))

    def own(self, num_users: int) -> Tensor:
        """The ranks of this process's users, float64 `[P, U]`; 0 for the other users."""
        ranks_PU = torch.zeros(len(PROTOCOLS), num_users, dtype=torch.float64)
        for users_B, ranks_PB in self.parts:
            ranks_PU[:, users_B.cpu()] = ranks_PB.cpu()
        return ranks_PU


def by_protocol(ranks_PU: Tensor) -> dict[str, Tensor]:
    """What `UserRanks.gather` returns, of the ranks of all users, where 0 is no rank."""
    users_T = ranks_PU[0].nonzero()[:, 0]
    return {"users": users_T, **{name: ranks_PU[row, users_T].float() for row, name in enumerate(PROTOCOLS)}}


def save_ranks(ranks: dict[str, Tensor], folder: Path) -> None:
    """Writes `ranks.safetensors` into a folder."""
    from safetensors.torch import save_file

    save_file(ranks, folder / RANKS)
