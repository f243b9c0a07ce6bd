"""Weights are carried over by raw ids, into any backbone and any fusion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from support.interactions import make_interactions
from tslrec.data.interactions import IdMap, Interactions
from tslrec.models.backbones.base import Backbone
from tslrec.models.backbones.bert4rec import BERT4Rec
from tslrec.models.backbones.caser import Caser
from tslrec.models.backbones.fpmc import FPMC
from tslrec.models.backbones.lru import LRURec
from tslrec.models.backbones.sasrec import SASRec
from tslrec.models.fusions.category import CategoryFusion
from tslrec.models.fusions.gate import GatedFusion
from tslrec.models.fusions.initial import InitialFusion
from tslrec.models.fusions.knowledge_scaling import KnowledgeScaling
from tslrec.models.item_embedding import FixedTable, GrownEmbedding, IdEmbedding, ItemEmbedding
from tslrec.stages.carrying import Carried, carry_over
from tslrec.stages.context import Earlier
from tslrec.stages.outputs import WEIGHTS
from tslrec.system.errors import UserError

SIZE, MAX_LEN = 4, 6


def named(interactions: Interactions, users: list[str], items: list[str]) -> Interactions:
    return replace(interactions, ids=IdMap(tuple(users), ("", *items)))


BEFORE = named(make_interactions([[1, 2, 3, 1], [2, 3, 1, 2]]), ["u", "v"], ["a", "b", "c"])
"""Items a, b and c, users u and v."""

TODAY = named(
    make_interactions([[2, 1, 4, 3, 1, 5], [4, 3, 2, 4, 3], [1, 4, 3, 1]]),
    ["w", "v", "u"],
    ["c", "new", "b", "a", "cold"],
)
"""Items and users in another order, an item that is trained, one that is only ever a test item, and a user."""


def carried(tmp_path: Path, backbone: Backbone, *, keeps_items: bool = False) -> Carried:
    """What a training begins with that continues a backbone with these weights."""
    save_file({name: value.clone() for name, value in backbone.state_dict().items()}, tmp_path / WEIGHTS)
    return Carried.of(Earlier({"stage": tmp_path}, BEFORE, keeps_items), "stage", TODAY)


def caser(item_embedding: ItemEmbedding, users: int) -> Caser:
    return Caser(item_embedding, users, MAX_LEN, use_user_embedding=True, own_output=True)


def sasrec(item_embedding: ItemEmbedding, **settings: Any) -> SASRec:
    return SASRec(item_embedding, 0, MAX_LEN, num_heads=1, inner_size=8, **settings)


def test_what_changed_is_counted(tmp_path: Path) -> None:
    found = carried(tmp_path, sasrec(IdEmbedding(3, SIZE)))
    assert found.items_I.tolist() == [0, 3, -1, 2, 1, -1]
    assert found.users_U.tolist() == [-1, 1, 0]
    assert found.cold_I.tolist() == [False] * 5 + [True]
    assert found.facts == {
        "items_before": 3,
        "items_kept": 3,
        "items_new": 2,
        "items_cold": 1,
        "users_before": 2,
        "users_kept": 2,
        "users_new": 1,
    }


def test_tables_of_items_and_users_are_carried_row_by_row_and_the_rest_as_a_whole(tmp_path: Path) -> None:
    old, new = caser(IdEmbedding(3, SIZE), 2), caser(IdEmbedding(5, SIZE), 3)
    drawn = {name: value.clone() for name, value in new.state_dict().items()}
    carried(tmp_path, old).begin(new)
    weights, begun = old.state_dict(), new.state_dict()
    for name in ("item_embedding.weight", "own_output_IE"):
        assert torch.equal(begun[name][[0, 1, 3, 4]], weights[name][[0, 3, 2, 1]])
        assert torch.equal(begun[name][[2, 5]], drawn[name][[2, 5]])
    assert torch.equal(begun["user_embedding"][[1, 2]], weights["user_embedding"][[1, 0]])
    assert torch.equal(begun["user_embedding"][0], drawn["user_embedding"][0])
    assert torch.equal(begun["first.weight"], weights["first.weight"])


def test_a_bias_per_item_is_carried_item_by_item_and_that_of_a_cold_item_is_the_mean(tmp_path: Path) -> None:
    old, new = LRURec(IdEmbedding(3, SIZE), 0, MAX_LEN), LRURec(IdEmbedding(5, SIZE), 0, MAX_LEN)
    assert old.output_bias_I is not None
    assert new.output_bias_I is not None
    drawn = new.output_bias_I.detach().clone()
    continued = carried(tmp_path, old)
    continued.begin(new)
    begun = new.output_bias_I.detach().clone()
    assert torch.equal(begun[[0, 1, 3, 4]], old.output_bias_I.detach()[[0, 3, 2, 1]])
    assert torch.equal(begun[[2, 5]], drawn[[2, 5]])
    continued.complete(new)
    torch.testing.assert_close(new.output_bias_I.detach()[5], begun[1:5].mean())


def test_a_source_of_knowledge_trains_its_biases_but_not_its_encoder(tmp_path: Path) -> None:
    old, new = LRURec(IdEmbedding(3, SIZE), 0, MAX_LEN), LRURec(IdEmbedding(5, SIZE), 0, MAX_LEN)
    continued = carried(tmp_path, old, keeps_items=True)
    continued.begin(new)
    before = {name: value.clone() for name, value in new.state_dict().items()}
    train_a_step(new)
    continued.complete(new)
    after = new.state_dict()
    table = after["item_embedding.weight"]
    assert torch.equal(table[[0, 1, 3, 4]], old.state_dict()["item_embedding.weight"][[0, 3, 2, 1]])
    changed = {name for name in after if name in before and not torch.equal(after[name], before[name])}
    assert changed - {"item_embedding.weight"} == {"output_bias_I"}


def test_as_many_users_as_before_are_still_carried_by_their_ids(tmp_path: Path) -> None:
    old, new = caser(IdEmbedding(3, SIZE), 2), caser(IdEmbedding(3, SIZE), 2)
    places = {"items_I": torch.tensor([0, 2, 1, 3]), "users_U": torch.tensor([1, 0])}
    carry_over(new, old.state_dict(), tmp_path, **places)
    assert torch.equal(new.state_dict()["user_embedding"], old.state_dict()["user_embedding"][[1, 0]])
    assert torch.equal(new.state_dict()["own_output_IE"], old.state_dict()["own_output_IE"][[0, 2, 1, 3]])


def test_categories_keep_their_vectors_even_if_the_last_one_is_gone(tmp_path: Path) -> None:
    old = sasrec(CategoryFusion(3, SIZE, clusters_I=torch.tensor([-1, 0, 1, 2])))
    fewer = sasrec(CategoryFusion(5, SIZE, clusters_I=torch.tensor([-1, 1, 1, 0, 0, 1])))
    carried(tmp_path, old).begin(fewer)
    name = "item_embedding.category_weight"
    assert torch.equal(fewer.state_dict()[name], old.state_dict()[name][:3])


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    old, new = sasrec(IdEmbedding(3, SIZE)), sasrec(IdEmbedding(5, SIZE), num_layers=1)
    with pytest.raises(UserError, match=r"blocks\.1\..+ has the shape .+, but the model of this run has none"):
        carried(tmp_path, old).begin(new)


def train_a_step(backbone: Backbone) -> None:
    """A step that moves every parameter that is trained, also by weight decay."""
    parameters = [each for each in backbone.parameters() if each.requires_grad]
    optimizer = torch.optim.Adam(parameters, lr=0.1, weight_decay=0.1)
    users = backbone(torch.tensor([[1, 2, 3, 4, 5]]), torch.tensor([5]), torch.tensor([0]))
    (users @ backbone.output_table(backbone.item_embedding.table()).T).square().sum().backward()
    optimizer.step()


def bert4rec(item_embedding: ItemEmbedding) -> BERT4Rec:
    return BERT4Rec(item_embedding, 0, MAX_LEN, num_heads=1, inner_size=8)


def test_biases_of_items_are_carried_row_by_row(tmp_path: Path) -> None:
    old, new = bert4rec(IdEmbedding(3, SIZE)), bert4rec(IdEmbedding(5, SIZE))
    with torch.no_grad():
        old.output_bias_I.copy_(torch.tensor([0.0, 1, 2, 3]))
    continued = carried(tmp_path, old)
    continued.begin(new)
    assert new.output_bias_I.tolist() == [0, 3, 0, 2, 1, 0]
    assert torch.equal(new.mask_D, old.mask_D)
    continued.complete(new)
    # The cold item has the mean of the others.
    assert new.output_bias_I.tolist() == [0, 3, 0, 2, 1, 1.5]


@pytest.mark.parametrize(
    ("make", "trained"),
    [
        (sasrec, set()),
        (lambda items: sasrec(items, own_output=True), {"own_output_IE"}),
        (bert4rec, {"output_bias_I"}),
        (lambda items: FPMC(items, 3 if items.num_items == 5 else 2, MAX_LEN), {"own_output_IE"}),
    ],
    ids=["sasrec", "sasrec, own output", "bert4rec", "fpmc"],
)
def test_a_source_of_knowledge_keeps_old_rows_and_its_encoder_to_the_bit(
    make: Callable[[ItemEmbedding], Backbone], trained: set[str], tmp_path: Path
) -> None:
    old, new = make(IdEmbedding(3, SIZE)), make(IdEmbedding(5, SIZE))
    continued = carried(tmp_path, old, keeps_items=True)
    continued.begin(new)
    assert isinstance(new.item_embedding, GrownEmbedding)
    before = {name: value.clone() for name, value in new.state_dict().items()}
    first = new.item_embedding.table().detach().clone()
    train_a_step(new)
    continued.complete(new)
    after = new.state_dict()
    table = after["item_embedding.weight"]
    assert torch.equal(table[[0, 1, 3, 4]], old.state_dict()["item_embedding.weight"][[0, 3, 2, 1]])
    assert not torch.equal(table[2], first[2])
    torch.testing.assert_close(table[5], table[1:5].mean(dim=0))
    changed = {name for name in after if name in before and not torch.equal(after[name], before[name])}
    assert changed - {"item_embedding.weight"} == trained
    assert isinstance(new.item_embedding, IdEmbedding)


def test_without_new_items_nothing_of_a_source_is_trained(tmp_path: Path) -> None:
    backbone = sasrec(IdEmbedding(3, SIZE))
    save_file(dict(backbone.state_dict()), tmp_path / WEIGHTS)
    Carried.of(Earlier({"stage": tmp_path}, BEFORE, True), "stage", BEFORE).begin(backbone)
    assert not any(each.requires_grad for each in backbone.parameters())


def test_a_recommender_trains_all_of_it_and_its_cold_item_is_the_mean(tmp_path: Path) -> None:
    new = sasrec(IdEmbedding(5, SIZE))
    continued = carried(tmp_path, sasrec(IdEmbedding(3, SIZE)))
    continued.begin(new)
    assert all(each.requires_grad for each in new.parameters())
    continued.complete(new)
    assert continued.fix_cold_rows(new) == {}
    table = new.item_embedding.table()
    torch.testing.assert_close(table[5], table[1:5].mean(dim=0))


def test_a_cold_item_of_a_fusion_is_its_damped_knowledge(tmp_path: Path) -> None:
    knowledge_IH = torch.randn(6, 7, generator=torch.Generator().manual_seed(0))
    scaling = KnowledgeScaling.of(knowledge_IH[:4])
    old = sasrec(GatedFusion(3, SIZE, knowledge_IH=knowledge_IH[:4]))
    fusion = GatedFusion(5, SIZE, knowledge_IH=knowledge_IH[[0, 3, 4, 2, 1, 5]], knowledge_scaling=scaling)
    new = sasrec(fusion)
    continued = carried(tmp_path, old)
    continued.begin(new)
    # The same rows in another order: neither the weights nor the scaling of the knowledge have changed.
    torch.testing.assert_close(fusion.table()[[4, 3, 1]], old.item_embedding.table()[1:])
    with torch.no_grad():
        fusion.knowledge_projection.weight *= 1000
    continued.complete(new)
    rows = continued.fix_cold_rows(new)
    assert rows["items"].tolist() == [5]
    assert torch.equal(fusion.id_embedding.weight[5], torch.zeros(SIZE))
    table, whole = new.item_embedding.table(), fusion.table().detach()
    assert isinstance(new.item_embedding, FixedTable)
    assert torch.equal(table[:5], whole[:5])
    assert torch.equal(table[5], rows["rows"][0])
    longest = whole[1:5].norm(dim=1).mean()
    torch.testing.assert_close(table[5], whole[5] * (longest / whole[5].norm()).clamp(max=1))


def test_cold_items_keep_the_vectors_that_started_from_their_knowledge(tmp_path: Path) -> None:
    knowledge_IH = torch.randn(6, SIZE, generator=torch.Generator().manual_seed(3))
    old = sasrec(InitialFusion(3, SIZE, knowledge_IH=knowledge_IH[:4]))
    new = sasrec(InitialFusion(5, SIZE, knowledge_IH=knowledge_IH))
    started_ID = new.item_embedding.table().detach().clone()
    found = carried(tmp_path, old)
    found.begin(new)
    found.complete(new)
    cold = found.fix_cold_rows(new)
    assert cold["items"].tolist() == [5]
    row_D, start_D = cold["rows"][0], started_ID[5]
    assert row_D.norm() > 0
    # Damped, in the same direction.
    assert torch.allclose(row_D / row_D.norm(), start_D / start_D.norm(), atol=1e-5)
