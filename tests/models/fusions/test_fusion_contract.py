"""What every fusion is, on the device of `--device`: an item embedding. The suite finds the fusions by their YAML."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hydra.utils import get_class
from torch import Tensor

from support.checkout import CHECKOUT
from support.devices import assert_close, without_dropout
from tslrec.models.backbones.base import Backbone
from tslrec.models.fusions.gate import GatedFusion
from tslrec.models.fusions.knowledge_scaling import KnowledgeScaling, standardise
from tslrec.models.item_embedding import ItemEmbedding
from tslrec.stages.building import build_backbone
from tslrec.stages.knowledge_width import takes_width
from tslrec.stages.method_stages import fusion_inputs

FUSIONS = sorted((CHECKOUT / "configs" / "fusion").glob("*.yaml"))
BACKBONES = sorted((CHECKOUT / "configs" / "model").glob("*.yaml"))
NUM_ITEMS, HIDDEN_SIZE, KNOWLEDGE_SIZE, NUM_CLUSTERS = 30, 8, 20, 4
STARTS_AS_GIVEN = {"initial"}
"""Fusions that keep nothing of what they are given but where they start; nothing of them is drawn."""
CPU = torch.device("cpu")


def inputs(knowledge_size: int = KNOWLEDGE_SIZE) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(0)
    clusters = torch.arange(NUM_ITEMS + 1) % NUM_CLUSTERS
    clusters[0] = -1
    knowledge = 3 + 5 * torch.randn(NUM_ITEMS + 1, knowledge_size, generator=draw)
    knowledge[0] = 0
    return {"knowledge_IH": knowledge, "clusters_I": clusters}


def build(path: Path, device: torch.device = CPU, **numbers: Any) -> ItemEmbedding:
    section = yaml.safe_load(path.read_text())
    given = inputs(HIDDEN_SIZE if takes_width(section) else KNOWLEDGE_SIZE)
    wanted = {name: given[name] for name in fusion_inputs(section)}
    numbers = {key: value for key, value in section.items() if key not in ("name", "_target_")} | numbers
    fusion = get_class(section["_target_"])(NUM_ITEMS, HIDDEN_SIZE, **wanted, **numbers)
    assert isinstance(fusion, ItemEmbedding)
    return fusion.to(device)


def backbone_around(path: Path, model: Path, device: torch.device) -> tuple[Backbone, tuple[Tensor, ...]]:
    """A backbone whose item embedding is a fusion, without dropout, and a batch for it."""
    torch.manual_seed(0)
    section = yaml.safe_load(model.read_text())
    backbone = without_dropout(build_backbone(section, build(path), num_users=2, max_len=7).to(device))
    batch = torch.tensor([[3, 1, 4], [9, 2, 0]]), torch.tensor([3, 2]), torch.arange(2)
    return backbone, tuple(each.to(device) for each in batch)


def assert_every_gradient(backbone: Backbone) -> None:
    """Every parameter has a finite gradient."""
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name


def test_there_are_fusions() -> None:
    assert {path.stem for path in FUSIONS} >= {"gate", "category", "initial", "plain"}
    assert {path.stem for path in BACKBONES} >= {"gru4rec", "caser", "sasrec", "fmlp", "lru"}


@pytest.mark.parametrize("path", FUSIONS, ids=lambda path: path.stem)
class TestFusion:
    def test_gives_a_table_with_a_zero_row_for_padding(self, path: Path, device: torch.device) -> None:
        table = build(path, device).table()
        assert table.shape == (NUM_ITEMS + 1, HIDDEN_SIZE)
        assert (table[0] == 0).all()
        assert (table[1:].norm(dim=1) > 0).all()

    def test_starts_at_the_scale_of_an_id_embedding(self, path: Path) -> None:
        torch.manual_seed(0)
        assert 0.01 < float(build(path).table().detach()[1:].std()) < 0.04

    def test_equals_itself_in_float64_on_the_cpu(self, path: Path, device: torch.device) -> None:
        torch.manual_seed(0)
        expected = build(path).double().table().float()
        torch.manual_seed(0)
        assert_close(build(path, device).table(), expected)

    @pytest.mark.parametrize("model", BACKBONES, ids=lambda path: path.stem)
    def test_a_backbone_around_it_leaves_it_as_it_was(self, path: Path, model: Path) -> None:
        fusion = build(path)
        before = {name: value.clone() for name, value in fusion.state_dict().items()}
        build_backbone(yaml.safe_load(model.read_text()), fusion, num_users=2, max_len=7)
        for name, value in fusion.state_dict().items():
            assert torch.equal(value, before[name]), name

    @pytest.mark.parametrize("model", BACKBONES, ids=lambda path: path.stem)
    def test_trains_with_any_backbone(self, path: Path, model: Path, device: torch.device) -> None:
        backbone, batch = backbone_around(path, model, device)
        (backbone(*batch) @ backbone.output_table(backbone.item_embedding.table()).T).square().sum().backward()
        assert_every_gradient(backbone)

    @pytest.mark.parametrize("model", BACKBONES, ids=lambda path: path.stem)
    def test_trains_in_bfloat16_with_any_backbone(self, path: Path, model: Path, device: torch.device) -> None:
        backbone, batch = backbone_around(path, model, device)
        exact_BE = backbone(*batch)
        with torch.autocast(device.type, torch.bfloat16):
            table_ID = backbone.item_embedding.table()
            user_BE = backbone(*batch, table_ID)
            scores_BI = user_BE @ backbone.output_table(table_ID).T
        torch.testing.assert_close(user_BE.float(), exact_BE.float(), rtol=0.05, atol=0.05)
        scores_BI.float().square().sum().backward()
        assert_every_gradient(backbone)

    def test_gradient_reaches_every_parameter(self, path: Path, device: torch.device) -> None:
        fusion = build(path, device)
        (fusion.table()[1:] * torch.randn(NUM_ITEMS, HIDDEN_SIZE, device=device)).sum().backward()
        for name, parameter in fusion.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name

    def test_rows_are_those_of_the_table_with_their_gradient(self, path: Path, device: torch.device) -> None:
        fusion = build(path, device)
        items = torch.tensor([0, 2, 3, NUM_ITEMS], device=device)
        rows, expected = fusion.rows(items), fusion.table()[items]
        assert_close(rows, expected)
        parameters, upstream = list(fusion.parameters()), torch.randn_like(rows)
        for found, wanted in zip(
            torch.autograd.grad(rows, parameters, upstream),
            torch.autograd.grad(expected, parameters, upstream),
            strict=True,
        ):
            assert_close(found, wanted)

    def test_what_it_was_given_is_frozen(self, path: Path) -> None:
        fusion = build(path)
        given = dict(fusion.named_buffers())
        assert given or path.stem in STARTS_AS_GIVEN or not fusion_inputs(yaml.safe_load(path.read_text()))
        assert not any(buffer.requires_grad for buffer in given.values())

    def test_state_dict_round_trip(self, path: Path, device: torch.device) -> None:
        torch.manual_seed(0)
        first = build(path, device)
        second = build(path, device)
        with torch.no_grad():
            for parameter in first.parameters():
                parameter.add_(torch.rand_like(parameter))
        assert not torch.equal(first.table(), second.table())
        second.load_state_dict(first.state_dict())
        assert torch.equal(first.table(), second.table())

    def test_the_seed_decides(self, path: Path, device: torch.device) -> None:
        torch.manual_seed(5)
        first = build(path, device).table()
        torch.manual_seed(5)
        assert torch.equal(first, build(path, device).table())

    def test_arrays_of_another_catalogue_are_refused(self, path: Path) -> None:
        section = yaml.safe_load(path.read_text())
        if not fusion_inputs(section):
            pytest.skip("it is given no array")
        name = fusion_inputs(section)[0]
        with pytest.raises(ValueError, match=str(NUM_ITEMS)):
            get_class(section["_target_"])(NUM_ITEMS, HIDDEN_SIZE, **{name: inputs(HIDDEN_SIZE)[name][:-1]})


def test_the_gate_is_the_formula(device: torch.device) -> None:
    fusion = GatedFusion(NUM_ITEMS, HIDDEN_SIZE, knowledge_IH=inputs()["knowledge_IH"]).to(device)
    e = fusion.id_embedding.table()
    knowledge_IH = standardise(inputs()["knowledge_IH"]).to(device)
    vh = knowledge_IH / knowledge_IH.shape[1] ** 0.5 @ fusion.knowledge_projection.weight.T
    gate = torch.sigmoid(torch.cat([e, vh], dim=1) @ fusion.gate.weight.T + fusion.gate.bias)
    assert_close(fusion.table(), gate * e + (1 - gate) * vh)


def test_a_gate_keeps_the_scaling_that_it_is_given() -> None:
    knowledge_IH = inputs()["knowledge_IH"]
    scaling = KnowledgeScaling.of(knowledge_IH)
    given = GatedFusion(NUM_ITEMS - 9, HIDDEN_SIZE, knowledge_IH=knowledge_IH[:-9], knowledge_scaling=scaling)
    whole = GatedFusion(NUM_ITEMS, HIDDEN_SIZE, knowledge_IH=knowledge_IH)
    assert torch.equal(given.knowledge_IH, whole.knowledge_IH[:-9])


@pytest.mark.parametrize(("bias", "side"), [(30.0, "id"), (-30.0, "knowledge")])
def test_a_gate_that_is_open_to_one_side_gives_that_side(bias: float, side: str) -> None:
    fusion = GatedFusion(NUM_ITEMS, HIDDEN_SIZE, knowledge_IH=inputs()["knowledge_IH"])
    torch.nn.init.constant_(fusion.gate.bias, bias)
    sides = {"id": fusion.id_embedding.table(), "knowledge": fusion.knowledge_projection(fusion.knowledge_IH)}
    torch.testing.assert_close(fusion.table(), sides[side], atol=1e-6, rtol=0)
