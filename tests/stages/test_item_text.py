"""Principal components of states, and the controls: what each keeps and what it loses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tslrec.settings.second_stages import ItemTextConfig
from tslrec.stages.item_text import Components, knowledge_from
from tslrec.system.errors import UserError

NUM_ITEMS, SIZE, RANK = 300, 12, 9


def states() -> Tensor:
    """States that vary in nine directions, around a mean that is not zero; the padding row must not count."""
    draw = torch.Generator().manual_seed(3)
    factors = torch.randn(NUM_ITEMS + 1, RANK, generator=draw).double() * torch.logspace(1, -1, RANK).double()
    table = 5 + factors @ torch.randn(RANK, SIZE, generator=draw).double()
    table[0] = 0
    return table


def knowledge(seed: int = 0, **numbers: Any) -> Tensor:
    return knowledge_from(Components.of(states()), states(), ItemTextConfig(**numbers), seed)


def covariance(table: Tensor) -> Tensor:
    return torch.cov(table[1:].T, correction=0)


def test_components_are_those_of_a_singular_value_decomposition() -> None:
    found, centred = Components.of(states()), (states()[1:] - states()[1:].mean(dim=0)).numpy()
    _, singular, directions = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(found.deviations_C[:RANK].numpy(), singular[:RANK] / NUM_ITEMS**0.5, rtol=1e-9)
    for mine, theirs in zip(found.directions_HC.T[:RANK].numpy(), directions, strict=False):
        np.testing.assert_allclose(abs(mine @ theirs), 1, rtol=1e-9)
        assert mine[np.abs(mine).argmax()] > 0
    assert found.count == RANK
    assert found.share(4) == pytest.approx(float((singular[:4] ** 2).sum() / (singular**2).sum()))


def test_states_in_another_order_have_the_same_components_and_signs() -> None:
    again = Components.of(torch.cat([states()[:1], states()[1:].flip(0)]))
    torch.testing.assert_close(again.directions_HC[:, :RANK], Components.of(states()).directions_HC[:, :RANK])


@pytest.mark.parametrize("whitened", [True, False])
def test_components_are_uncorrelated(whitened: bool) -> None:
    found = knowledge(size=5, whitened=whitened)
    assert found.shape == (NUM_ITEMS + 1, 5)
    assert (found[0] == 0).all()
    deviations = torch.ones(5) if whitened else Components.of(states()).deviations_C[:5]
    torch.testing.assert_close(covariance(found), torch.diag(deviations.double().square()), atol=1e-6, rtol=1e-6)


def test_without_a_size_the_states_stay() -> None:
    assert torch.equal(knowledge(), states())


@pytest.mark.parametrize("numbers", [{}, {"size": 4}, {"size": 4, "whitened": True}])
def test_permuted_vectors_are_the_same_ones_dealt_anew(numbers: dict[str, Any]) -> None:
    own, dealt = knowledge(**numbers), knowledge(control="permuted", **numbers)
    assert torch.equal(dealt, knowledge(control="permuted", **numbers))
    assert not torch.equal(dealt, knowledge(1, control="permuted", **numbers))
    assert torch.equal(dealt[0], own[0])
    assert (dealt[1:] == own[1:]).all(dim=1).sum() < 10
    order = [torch.from_numpy(np.lexsort(each[1:].numpy().T)) for each in (own, dealt)]
    assert torch.equal(own[1:][order[0]], dealt[1:][order[1]])


@pytest.mark.parametrize("numbers", [{}, {"size": 4}, {"size": 4, "whitened": True}])
def test_random_vectors_have_the_covariance(numbers: dict[str, Any]) -> None:
    own = knowledge(**numbers)
    drawn = torch.cat([knowledge(seed, control="random", **numbers)[1:] for seed in range(30)])
    assert torch.equal(knowledge(2, control="random", **numbers), knowledge(2, control="random", **numbers))
    scale = float(covariance(own).diagonal().max())
    assert float((covariance(torch.cat([drawn[:1], drawn])) - covariance(own)).abs().max()) < 0.1 * scale
    assert float((drawn.mean(dim=0) - own[1:].mean(dim=0)).abs().max()) < 0.1 * scale**0.5


def test_more_components_than_there_are_is_refused() -> None:
    with pytest.raises(UserError, match=rf"item_text\.size=10: .*{NUM_ITEMS} titles vary in 9 directions only; set it"):
        knowledge(size=10)


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 12),
    width=st.integers(1, 6),
    size=st.none() | st.integers(1, 8),
    whitened=st.booleans(),
    control=st.sampled_from([None, "permuted", "random"]),
    distinct=st.integers(1, 12),
)
def test_any_table_gives_finite_vectors_or_one_line(
    rows: int, width: int, size: int | None, whitened: bool, control: str | None, distinct: int
) -> None:
    draw = torch.Generator().manual_seed(rows)
    table = torch.randn(distinct, width, generator=draw)[torch.arange(rows + 1) % distinct]
    numbers = ItemTextConfig(size=size, whitened=whitened and size is not None, control=control)
    components = Components.of(table)
    if size is not None and size > components.count:
        with pytest.raises(UserError, match=r"^item_text\.size=\d+: .{,200}$"):
            knowledge_from(components, table, numbers, 0)
        return
    found = knowledge_from(components, table, numbers, 0)
    assert found.shape == (rows + 1, width if size is None else size)
    assert torch.isfinite(found).all()
