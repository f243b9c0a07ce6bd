"""What every backbone is. The suite finds the backbones by their YAML."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from support.checkout import CHECKOUT
from tslrec.data.packing import Packing
from tslrec.models.backbones.base import Backbone, CausalBackbone
from tslrec.models.dropout import drawing_from
from tslrec.models.item_embedding import IdEmbedding
from tslrec.stages.building import build_backbone

Model = dict[str, Any]
DEFAULTS: dict[str, Model] = {
    path.stem: yaml.safe_load(path.read_text()) for path in sorted((CHECKOUT / "configs" / "model").glob("*.yaml"))
}
BACKBONES = {
    **DEFAULTS,
    "sasrec, norm first": {**DEFAULTS["sasrec"], "norm_first": True},
    "sasrec, own output": {**DEFAULTS["sasrec"], "own_output": True},
    "caser, user vectors": {**DEFAULTS["caser"], "use_user_embedding": True},
    "caser, its authors' output": {
        **DEFAULTS["caser"],
        "use_user_embedding": True,
        "recent_first": True,
        "own_output": True,
    },
}
ITEMS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 0, 0], [7, 0, 0, 0, 0]])
LENGTHS = torch.tensor([5, 3, 1])
USERS = torch.arange(3)


def build(model: Model, seed: int = 0) -> Backbone:
    torch.manual_seed(seed)
    return build_backbone(model, IdEmbedding(10, 8), num_users=3, max_len=7)


def test_there_are_backbones() -> None:
    assert BACKBONES.keys() >= {"gru4rec", "caser", "sasrec", "fmlp"}


@pytest.mark.parametrize("model", BACKBONES.values(), ids=BACKBONES)
class TestBackbone:
    def test_gives_a_vector_per_user(self, model: Model) -> None:
        backbone = build(model)
        user = backbone(ITEMS, LENGTHS, USERS)
        assert user.shape == (3, backbone.output_table(backbone.item_embedding.table()).shape[1])
        assert torch.isfinite(user).all()

    def test_scores_every_item(self, model: Model) -> None:
        backbone = build(model)
        table = backbone.item_embedding.table()
        output = backbone.output_table(table)
        assert len(output) == 11
        assert (output[0] == 0).all()
        assert output is table or output is backbone.own_output_IE
        rows = torch.tensor([0, 3, 7])
        assert torch.equal(backbone.output_rows(rows, table[rows]), output[rows])

    def test_more_padding_changes_nothing(self, model: Model) -> None:
        backbone = build(model).eval()
        wider = torch.nn.functional.pad(ITEMS, (0, 2))
        torch.testing.assert_close(backbone(wider, LENGTHS, USERS), backbone(ITEMS, LENGTHS, USERS))

    def test_a_neighbour_in_the_batch_changes_nothing(self, model: Model) -> None:
        backbone = build(model).eval()
        alone = backbone(ITEMS[1:2, :3], LENGTHS[1:2], USERS[1:2])
        torch.testing.assert_close(alone, backbone(ITEMS, LENGTHS, USERS)[1:2])

    def test_what_it_says_of_its_draws_holds(self, model: Model) -> None:
        backbone = build(model)
        if not backbone.draws_by_dropout:
            pytest.skip("does not claim to draw by Dropout alone")
        before = torch.get_rng_state()
        with drawing_from(torch.Generator().manual_seed(1)):
            first = backbone(ITEMS, LENGTHS, USERS)
            first.sum().backward()
        with drawing_from(torch.Generator().manual_seed(2)):
            assert not torch.equal(backbone(ITEMS, LENGTHS, USERS), first)
        assert torch.equal(torch.get_rng_state(), before)

    def test_all_positions_are_the_prefixes(self, model: Model) -> None:
        backbone = build(model).eval()
        assert backbone.causal == isinstance(backbone, CausalBackbone)
        if not isinstance(backbone, CausalBackbone):
            pytest.skip("does not claim to be causal")
        states = backbone.all_positions(ITEMS, LENGTHS, USERS)
        for length in range(1, 6):
            prefix = backbone(ITEMS[:1, :length], torch.tensor([length]), USERS[:1])
            torch.testing.assert_close(states[:1, length - 1], prefix)

    def test_sequences_in_one_row_do_not_see_each_other(self, model: Model) -> None:
        backbone = build(model).eval()
        if not isinstance(backbone, CausalBackbone) or not backbone.packs:
            pytest.skip("does not claim to take packed rows")
        row = torch.cat([ITEMS[b, : LENGTHS[b]] for b in range(3)])[None]
        sequences = torch.repeat_interleave(torch.arange(3), LENGTHS)[None]
        positions = torch.cat([torch.arange(int(length)) for length in LENGTHS])[None]
        wider = [
            torch.nn.functional.pad(each, (0, 2), value=blank)
            for each, blank in ((row, 0), (sequences, -1), (positions, 0))
        ]
        packed = backbone.all_positions(wider[0], LENGTHS, USERS, None, Packing(wider[1], wider[2]))
        apart = backbone.all_positions(ITEMS, LENGTHS, USERS)
        expected = torch.cat([apart[b, : LENGTHS[b]] for b in range(3)])
        torch.testing.assert_close(packed[0, :-2], expected)

    def test_gradient_reaches_every_parameter(self, model: Model) -> None:
        backbone = build(model).eval()
        user = backbone(ITEMS, LENGTHS, USERS)
        scores: Tensor = user @ backbone.output_table(backbone.item_embedding.table()).T
        (scores * torch.randn_like(scores)).sum().backward()
        for name, parameter in backbone.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name

    def test_padding_is_not_trained(self, model: Model) -> None:
        backbone = build(model)
        backbone(ITEMS, LENGTHS, USERS).sum().backward()
        gradient = dict(backbone.named_parameters())["item_embedding.weight"].grad
        assert gradient is not None
        assert (gradient[0] == 0).all()

    def test_a_given_table_is_used(self, model: Model) -> None:
        backbone = build(model).eval()
        other = 2 * backbone.item_embedding.table()
        assert not torch.equal(backbone(ITEMS, LENGTHS, USERS, other), backbone(ITEMS, LENGTHS, USERS))

    def test_state_dict_round_trip(self, model: Model) -> None:
        first, second = build(model, 0).eval(), build(model, 1).eval()
        second.load_state_dict(first.state_dict())
        assert torch.equal(first(ITEMS, LENGTHS, USERS), second(ITEMS, LENGTHS, USERS))

    def test_the_seed_decides(self, model: Model) -> None:
        first, again = build(model, 5)(ITEMS, LENGTHS, USERS), build(model, 5)(ITEMS, LENGTHS, USERS)
        assert torch.equal(first, again)
