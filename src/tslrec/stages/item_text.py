"""What of the titles' hidden states becomes the items' knowledge: principal components, whitened or not, or a control.

The controls tell what a gain comes from. Of `permuted` vectors each is some other item's, so that only what an item is
was lost; of `random` ones only the covariance is kept.

Shapes: I items (row 0 is padding), R items of a slice, H size of a state, C components, S size of the knowledge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tslrec.knowledge.single_file import read_knowledge, write_knowledge
from tslrec.settings.second_stages import ItemTextConfig
from tslrec.stages.context import StageContext
from tslrec.system.errors import UserError
from tslrec.system.row_tables import Table, slices

NO_VARIANCE = 1e-12
"""A component with a smaller share of the largest one's variance is a rounding error."""


def run(context: StageContext) -> dict[str, Any]:
    """Writes `knowledge.safetensors`: `knowledge` `[I + 1, S]`, float32.

    Returns:
        `size`, S; and `variance_kept`, the share of the states' variance that the components have.

    Raises:
        UserError: if there are not so many components.
    """
    states_IH = read_knowledge(context.inputs["title_states"])
    found = Components.of(states_IH)
    knowledge_IS = knowledge_from(found, states_IH, context.config.item_text, context.seed)
    write_knowledge(context.folder, knowledge_IS, context.interactions)
    size = context.config.item_text.size
    return {"size": knowledge_IS.shape[1], "variance_kept": 1.0 if size is None else found.share(size)}


@dataclass(frozen=True)
class Components:
    """The principal components of a table over the items, padding excluded; computed in float64.

    Attributes:
        mean_H: the mean of the rows.
        directions_HC: orthonormal columns, by falling variance; the largest number of each, by its size, is positive.
        deviations_C: the standard deviation along each.
    """

    mean_H: Tensor
    directions_HC: Tensor
    deviations_C: Tensor

    @classmethod
    def of(cls, states_IH: Table) -> Components:
        """Measures a table that is read slice by slice.

        Args:
            states_IH: `[I + 1, H]`.
        """
        rows, size = len(states_IH), states_IH.shape[1]
        mean_H = torch.zeros(size, dtype=torch.float64)
        for part in slices(rows, start=1):
            mean_H += states_IH[part].double().sum(dim=0)
        mean_H /= rows - 1
        covariance_HH = torch.zeros(size, size, dtype=torch.float64)
        for part in slices(rows, start=1):
            centred_RH = states_IH[part].double() - mean_H
            covariance_HH += centred_RH.T @ centred_RH
        variances_H, directions_HH = torch.linalg.eigh(covariance_HH / (rows - 1))
        directions_HC = directions_HH.flip(1)
        largest_1C = directions_HC.abs().argmax(dim=0, keepdim=True)
        directions_HC = directions_HC * directions_HC.gather(0, largest_1C).sign()
        return cls(mean_H, directions_HC, variances_H.flip(0).clamp(min=0).sqrt())

    @property
    def count(self) -> int:
        """How many components vary at all."""
        variances_C = self.deviations_C.square()
        return int((variances_C > NO_VARIANCE * variances_C[0]).sum())

    def share(self, size: int) -> float:
        """The share of the variance that the first `size` components have; of a constant table 1."""
        variances_C = self.deviations_C.square()
        total = float(variances_C.sum())
        return float(variances_C[:size].sum()) / total if total > 0 else 1.0

    def scores(self, states_IH: Table, size: int) -> Tensor:
        """The first `size` components of each row, float64 `[I + 1, size]`; padding is zero."""
        scores_IS = torch.zeros(len(states_IH), size, dtype=torch.float64)
        for part in slices(len(states_IH), start=1):
            scores_IS[part] = (states_IH[part].double() - self.mean_H) @ self.directions_HC[:, :size]
        return scores_IS


def knowledge_from(found: Components, states_IH: Table, numbers: ItemTextConfig, seed: int) -> Tensor:
    """The items' knowledge, `[I + 1, S]`.

    Args:
        found: the principal components of the states.
        states_IH: the states, `[I + 1, H]`.
        numbers: what of them is wanted.
        seed: draws the controls.

    Raises:
        UserError: if there are not so many components.
    """
    size = numbers.size
    if size is not None and size > found.count:
        raise UserError(
            f"item_text.size={size}: the states of {len(states_IH) - 1} titles vary in {found.count} directions only; "
            f"set it to {found.count} or less"
        )
    if numbers.control == "random":
        return drawn(found, len(states_IH), numbers, seed)
    if size is None:
        knowledge_IS = states_IH[0 : len(states_IH)].double()
    else:
        knowledge_IS = found.scores(states_IH, size)
        if numbers.whitened:
            knowledge_IS /= found.deviations_C[:size]
    if numbers.control == "permuted":
        dealt = 1 + np.random.default_rng(seed).permutation(len(states_IH) - 1)
        knowledge_IS = torch.cat([knowledge_IS[:1], knowledge_IS[torch.from_numpy(dealt)]])
    return knowledge_IS


def drawn(found: Components, rows: int, numbers: ItemTextConfig, seed: int) -> Tensor:
    """Vectors from the normal distribution whose covariance is that of the knowledge, `[I + 1, S]`; padding is zero.

    Args:
        found: the principal components of the states.
        rows: I + 1.
        numbers: what the knowledge would be.
        seed: draws them.
    """
    size = found.count if numbers.size is None else numbers.size
    scores_IS = torch.from_numpy(np.random.default_rng(seed).standard_normal((rows, size)))
    if not numbers.whitened:
        scores_IS *= found.deviations_C[:size]
    if numbers.size is None:
        scores_IS = scores_IS @ found.directions_HC[:, :size].T + found.mean_H
    scores_IS[0] = 0
    return scores_IS
