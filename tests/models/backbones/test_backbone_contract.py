"""What every backbone is, on the device of `--device`. The suite finds the backbones by their YAML."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import yaml
from torch import Tensor

from support.checkout import CHECKOUT
from support.devices import assert_close, without_dropout
from tslrec.data.packing import Packing
from tslrec.models.backbones.base import Backbone, CausalBackbone, MaskedBackbone, PositionBackbone
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
    "bert4rec, RecBole's rules": {**DEFAULTS["bert4rec"], "recbole_rules": True},
}
ITEMS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 0, 0], [7, 0, 0, 0, 0]])
LENGTHS = torch.tensor([5, 3, 1])
USERS = torch.arange(3)
CPU = torch.device("cpu")
Batch = tuple[Tensor, Tensor, Tensor]
"""Items, lengths and users."""


def build(model: Model, device: torch.device, seed: int = 0) -> Backbone:
    torch.manual_seed(seed)
    return build_backbone(model, IdEmbedding(10, 8), num_users=3, max_len=7).to(device)


@pytest.fixture
def batch(device: torch.device) -> Batch:
    return ITEMS.to(device), LENGTHS.to(device), USERS.to(device)


def first(batch: Batch, rows: slice, length: int) -> Batch:
    """Some sequences of a batch, cut to a length."""
    items_BL, lengths_B, users_B = batch
    return items_BL[rows, :length], lengths_B[rows].clamp(max=length), users_B[rows]


def test_there_are_backbones() -> None:
    assert BACKBONES.keys() >= {"gru4rec", "caser", "sasrec", "fmlp", "fpmc", "bert4rec", "lru"}


@pytest.mark.parametrize("model", BACKBONES.values(), ids=BACKBONES)
class TestBackbone:
    def test_gives_a_vector_per_user(self, model: Model, device: torch.device, batch: Batch) -> None:
        backbone = build(model, device)
        user = backbone(*batch)
        assert user.shape == (3, backbone.output_table(backbone.item_embedding.table()).shape[1])
        assert torch.isfinite(user).all()

    def test_scores_every_item(self, model: Model, device: torch.device, batch: Batch) -> None:
        backbone = build(model, device)
        table = backbone.item_embedding.table()
        output = backbone.output_table(table)
        assert len(output) == 11
        assert (output[0] == 0).all()
        if backbone.output_bias_I is None:
            assert output is table or output is backbone.own_output_IE
        else:
            assert torch.equal(output, torch.cat([table, backbone.output_bias_I[:, None]], dim=1))
            assert (backbone(*batch)[:, -1] == 1).all()
        rows = torch.tensor([0, 3, 7], device=device)
        assert torch.equal(backbone.output_rows(rows, table[rows]), output[rows])

    def test_more_padding_changes_nothing(self, model: Model, device: torch.device, batch: Batch) -> None:
        backbone = build(model, device).eval()
        wider = torch.nn.functional.pad(batch[0], (0, 2))
        assert_close(backbone(wider, *batch[1:]), backbone(*batch))

    def test_a_neighbour_in_the_batch_changes_nothing(self, model: Model, device: torch.device, batch: Batch) -> None:
        backbone = build(model, device).eval()
        alone = backbone(*first(batch, slice(1, 2), 3))
        assert_close(alone, backbone(*batch)[1:2])

    def test_equals_itself_in_float64_on_the_cpu(self, model: Model, device: torch.device, batch: Batch) -> None:
        expected = build(model, CPU).double().eval()(ITEMS, LENGTHS, USERS).float()
        found = build(model, device).eval()(*batch)
        assert_close(found, expected)

    def test_what_it_says_of_its_draws_holds(self, model: Model) -> None:
        # Several threads with a generator each are for the CPU.
        backbone = build(model, CPU)
        if not backbone.draws_by_dropout:
            pytest.skip("does not claim to draw by Dropout alone")
        before = torch.get_rng_state()
        with drawing_from(torch.Generator().manual_seed(1)):
            user = backbone(ITEMS, LENGTHS, USERS)
            user.sum().backward()
        with drawing_from(torch.Generator().manual_seed(2)):
            assert not torch.equal(backbone(ITEMS, LENGTHS, USERS), user)
        assert torch.equal(torch.get_rng_state(), before)

    def test_all_positions_are_the_prefixes(self, model: Model, device: torch.device, batch: Batch) -> None:
        backbone = build(model, device).eval()
        assert backbone.causal == isinstance(backbone, CausalBackbone)
        if not isinstance(backbone, CausalBackbone):
            pytest.skip("does not claim to be causal")
        states = backbone.all_positions(*batch)
        for length in range(1, 6):
            prefix = backbone(*first(batch, slice(1), length))
            assert_close(states[:1, length - 1], prefix)

    def test_sequences_in_one_row_do_not_see_each_other(self, model: Model, device: torch.device, batch: Batch) -> None:
        backbone = build(model, device).eval()
        if not isinstance(backbone, PositionBackbone) or not backbone.packs:
            pytest.skip("does not claim to take packed rows")
        row = torch.cat([ITEMS[b, : LENGTHS[b]] for b in range(3)])[None]
        sequences = torch.repeat_interleave(torch.arange(3), LENGTHS)[None]
        positions = torch.cat([torch.arange(int(length)) for length in LENGTHS])[None]
        wider = [
            torch.nn.functional.pad(each, (0, 2), value=blank).to(device)
            for each, blank in ((row, 0), (sequences, -1), (positions, 0))
        ]
        packed = backbone.all_positions(wider[0], *batch[1:], None, Packing(wider[1], wider[2]))
        apart = backbone.all_positions(*batch)
        expected = torch.cat([apart[b, : LENGTHS[b]] for b in range(3)])
        assert_close(packed[0, :-2], expected)

    def test_a_masked_item_is_told_from_both_sides(self, model: Model, device: torch.device, batch: Batch) -> None:
        backbone = build(model, device).eval()
        assert (backbone.masking is not None) == isinstance(backbone, MaskedBackbone)
        if not isinstance(backbone, MaskedBackbone):
            pytest.skip("does not claim to tell masked items")
        items, lengths, users = first(batch, slice(1), 5)
        items[0, 2] = 0
        expected = backbone.all_positions(items, lengths, users)[0, 2]
        for place in (0, 1, 3, 4):
            changed = items.clone()
            changed[0, place] = 7
            assert not torch.allclose(backbone.all_positions(changed, lengths, users)[0, 2], expected)

    def test_gradient_reaches_every_parameter(self, model: Model, device: torch.device, batch: Batch) -> None:
        backbone = without_dropout(build(model, device))
        user = backbone(*batch)
        scores: Tensor = user @ backbone.output_table(backbone.item_embedding.table()).T
        (scores * torch.randn_like(scores)).sum().backward()
        for name, parameter in backbone.named_parameters():
            assert parameter.grad is not None, name
            assert torch.isfinite(parameter.grad).all(), name

    def test_padding_is_not_trained(self, model: Model, device: torch.device, batch: Batch) -> None:
        backbone = build(model, device)
        backbone(*batch).sum().backward()
        gradient = dict(backbone.named_parameters())["item_embedding.weight"].grad
        assert gradient is not None
        assert (gradient[0] == 0).all()

    def test_a_given_table_is_used(self, model: Model, device: torch.device, batch: Batch) -> None:
        backbone = build(model, device).eval()
        other = 2 * backbone.item_embedding.table()
        assert not torch.equal(backbone(*batch, other), backbone(*batch))

    def test_state_dict_round_trip(self, model: Model, device: torch.device, batch: Batch) -> None:
        saved, loaded = build(model, device, 0).eval(), build(model, device, 1).eval()
        loaded.load_state_dict(saved.state_dict())
        assert torch.equal(saved(*batch), loaded(*batch))

    def test_the_seed_decides(self, model: Model, device: torch.device, batch: Batch) -> None:
        once, again = build(model, device, 5)(*batch), build(model, device, 5)(*batch)
        assert torch.equal(once, again)
