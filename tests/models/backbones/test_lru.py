"""LRURec equals the authors' class on its weights and inputs, in both forms of the recurrence."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from support.checkout import golden_folder
from support.devices import assert_close
from support.packed import packing_of
from tslrec.data.packing import Packing
from tslrec.models.backbones import lru
from tslrec.models.backbones.lru import LRURec
from tslrec.models.item_embedding import IdEmbedding

FILES = sorted((golden_folder() / "rivals").rglob("LRURec*.npz"))
needs_golden = pytest.mark.skipif(not FILES, reason="the reference files are not beside the checkout")
every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
ATOL = {"cpu": 2e-5, "cuda": 5e-5}
Golden = dict[str, Tensor]


@pytest.fixture(params=["steps", "doubling"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, device: torch.device) -> str:
    """Computes the recurrence in one form; both run on a CPU."""
    if request.param == "steps" and device.type != "cpu":
        pytest.skip("the recurrence by steps is for a CPU")
    monkeypatch.setattr(lru, "goes_by_steps", lambda items_BL: request.param == "steps")
    return str(request.param)


class PaddingTrained(LRURec):
    """The authors': the vector of padding is one like any other."""

    def embed(self, items_BL: Tensor, table_ID: Tensor | None) -> Tensor:
        return F.embedding(items_BL, self.table(table_ID))


BLOCK_NAMES = {
    "output_norm": "lru_layer.layer_norm",
    "expand": "feed_forward.w_1",
    "contract": "feed_forward.w_2",
    "norm": "feed_forward.layer_norm",
}


def as_theirs(ours: Mapping[str, Tensor]) -> Golden:
    """Weights, or gradients, of ours by their names and in their shapes."""
    theirs = {"embedding.token.weight": ours["item_embedding.weight"], "model.bias": ours["output_bias_I"]}
    for kind in ("weight", "bias"):
        theirs[f"embedding.layer_norm.{kind}"] = ours[f"norm.{kind}"]
    for i in range(sum(name.endswith("nu_log") for name in ours)):
        own, other = f"blocks.{i}.", f"model.lru_blocks.{i}."
        rows = [ours[f"{own}recurrence.{name}_log"] for name in ("nu", "theta", "gamma")]
        theirs[f"{other}lru_layer.params_log"] = torch.stack(rows)
        for kind in ("weight", "bias"):
            theirs[f"{other}lru_layer.in_proj.{kind}"] = torch.complex(*ours[f"{own}recurrence.{kind}"].unbind(1))
            for name, other_name in BLOCK_NAMES.items():
                theirs[f"{other}{other_name}.{kind}"] = ours[f"{own}{name}.{kind}"]
        real, negative = ours[f"{own}output.weight"].unflatten(1, (-1, 2)).unbind(2)
        theirs[f"{other}lru_layer.out_proj.weight"] = torch.complex(real, -negative)
        # Only the real part of the output is used, so the bias's imaginary part has no effect.
        bias = ours[f"{own}output.bias"]
        theirs[f"{other}lru_layer.out_proj.bias"] = torch.complex(bias, torch.zeros_like(bias))
    return theirs


def as_ours(theirs: Mapping[str, Tensor]) -> Golden:
    """Their weights by our names and in our shapes."""
    ours = {"item_embedding.weight": theirs["embedding.token.weight"], "output_bias_I": theirs["model.bias"]}
    for kind in ("weight", "bias"):
        ours[f"norm.{kind}"] = theirs[f"embedding.layer_norm.{kind}"]
    for i in range(sum(name.endswith("params_log") for name in theirs)):
        own, other = f"blocks.{i}.", f"model.lru_blocks.{i}."
        rows = theirs[f"{other}lru_layer.params_log"]
        ours |= {f"{own}recurrence.{name}_log": row for name, row in zip(("nu", "theta", "gamma"), rows, strict=True)}
        for kind in ("weight", "bias"):
            part = theirs[f"{other}lru_layer.in_proj.{kind}"]
            ours[f"{own}recurrence.{kind}"] = torch.stack([part.real, part.imag], dim=1)
            for name, other_name in BLOCK_NAMES.items():
                ours[f"{own}{name}.{kind}"] = theirs[f"{other}{other_name}.{kind}"]
        output = theirs[f"{other}lru_layer.out_proj.weight"]
        ours[f"{own}output.weight"] = torch.stack([output.real, -output.imag], dim=2).flatten(1)
        ours[f"{own}output.bias"] = theirs[f"{other}lru_layer.out_proj.bias"].real
    return ours


def load(path: Path, device: torch.device) -> tuple[Golden, LRURec]:
    """A reference file, and the backbone with its weights; without dropout."""
    with np.load(path) as file:
        meta = json.loads(str(file["meta"]))
        golden = {key: torch.from_numpy(file[key]).to(device) for key in file.files if key != "meta"}
    weights = as_ours(part(golden, "w/"))
    table = weights["item_embedding.weight"]
    backbone = PaddingTrained(
        IdEmbedding(len(table) - 1, table.shape[1]), 1, golden["item_seq"].shape[1], num_layers=meta["blocks"]
    )
    backbone.load_state_dict(weights)
    return golden, backbone.to(device).eval()


def part(golden: Golden, prefix: str) -> Golden:
    return {name[len(prefix) :]: value for name, value in golden.items() if name.startswith(prefix)}


def table_of(backbone: LRURec) -> Tensor:
    return backbone.output_table(backbone.item_embedding.table())


def gradients_of(loss: Tensor, backbone: LRURec) -> Golden:
    backbone.zero_grad()
    loss.backward()
    found = {}
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None, name
        found[name] = parameter.grad.clone()
    return as_theirs(found)


def to_the_right(left_padded: Tensor, lengths_B: Tensor) -> Tensor:
    """Moves what belongs to the last `lengths_B` positions to the first ones; 0 behind it."""
    length = left_padded.shape[1]
    column = torch.arange(length, device=left_padded.device)
    source = (column + length - lengths_B[:, None]).clamp(max=length - 1)
    more = left_padded.ndim - 2
    index = source.reshape(*source.shape, *([1] * more)).expand_as(left_padded)
    kept = (column < lengths_B[:, None]).reshape(*source.shape, *([1] * more))
    return left_padded.gather(1, index) * kept


def states_and_those_of_padding(golden: Golden, backbone: LRURec) -> tuple[Tensor, Tensor]:
    """States at all positions `[B, L, E]`, and the state of a padding position, from which nothing flows, `[E]`."""
    items, lengths = golden["item_seq_right"], golden["item_seq_len"]
    states = backbone.all_positions(items, lengths, torch.zeros_like(lengths))
    alone = torch.zeros(1, 1, dtype=torch.int64, device=items.device)
    ones = torch.ones(1, dtype=torch.int64, device=items.device)
    return states, backbone.all_positions(alone, ones, ones)[0, 0]


@needs_golden
@every_file
def test_user_vectors_scores_and_their_loss_are_theirs(path: Path, form: str, device: torch.device) -> None:
    golden, backbone = load(path, device)
    atol = ATOL[device.type]
    items, lengths = golden["item_seq_right"], golden["item_seq_len"]
    assert torch.equal(to_the_right(golden["item_seq"], lengths), items)
    user = backbone(items, lengths, torch.zeros_like(lengths))
    torch.testing.assert_close(user[:, :-1], golden["seq_output"], atol=atol, rtol=0)
    assert (user[:, -1] == 1).all()
    scores = user @ table_of(backbone).T
    torch.testing.assert_close(scores, golden["scores"], atol=atol, rtol=0)
    allowed = scores.detach().scatter(1, items, -torch.inf)
    allowed[:, 0] = -torch.inf
    assert torch.equal(allowed.topk(golden["candidates"].shape[1]).indices, golden["candidates"])
    loss = F.cross_entropy(scores, golden["target"])
    torch.testing.assert_close(loss, golden["ce_loss"], atol=1e-5, rtol=0)
    found = gradients_of(loss, backbone)
    for name, gradient in part(golden, "grad/").items():
        assert_close(found[name], gradient)
    norms = part(golden, "gradnorm/")
    assert norms.keys() == found.keys()
    for name, norm in norms.items():
        assert_close(torch.linalg.vector_norm(found[name]), norm)


@needs_golden
@every_file
def test_states_and_losses_of_all_positions_are_theirs(path: Path, form: str, device: torch.device) -> None:
    golden, backbone = load(path, device)
    atol = ATOL[device.type]
    lengths, labels = golden["item_seq_len"], golden["labels"]
    states, of_padding = states_and_those_of_padding(golden, backbone)
    is_item = golden["item_seq_right"] > 0
    expected = to_the_right(golden["hidden"], lengths)
    torch.testing.assert_close(states[is_item][:, :-1], expected[is_item], atol=atol, rtol=0)
    width = labels.shape[1]
    padded = lengths < width
    at_padding = golden["hidden"][padded, width - 1 - lengths[padded]]
    torch.testing.assert_close(of_padding[:-1].expand_as(at_padding), at_padding, atol=atol, rtol=0)

    first_labels = labels[padded, width - 1 - lengths[padded]]
    assert (first_labels > 0).all()
    counted = to_the_right(labels, lengths)
    assert int((labels > 0).sum()) == int((counted > 0).sum()) + int(padded.sum())
    of_items = (states[counted > 0], counted[counted > 0])
    of_all = (
        torch.cat([of_items[0], of_padding.expand(len(first_labels), -1)]),
        torch.cat([of_items[1], first_labels]),
    )
    for (users, targets), loss_name, prefix in (
        (of_items, "ce_loss_train_items", "train_items_"),
        (of_all, "ce_loss_train", "train_"),
    ):
        loss = F.cross_entropy(users @ table_of(backbone).T, targets)
        torch.testing.assert_close(loss, golden[loss_name], atol=1e-5, rtol=0)
        backbone.zero_grad()
        loss.backward(retain_graph=True)
        named = {name: each.grad for name, each in backbone.named_parameters() if each.grad is not None}
        found = as_theirs(named)
        norms = part(golden, f"{prefix}gradnorm/")
        assert norms.keys() == found.keys()
        for name, norm in norms.items():
            assert_close(torch.linalg.vector_norm(found[name]), norm)
        for name, gradient in part(golden, f"{prefix}grad/").items():
            assert_close(found[name], gradient)


@needs_golden
@every_file
def test_packed_rows_give_the_same_states_and_gradients(path: Path, form: str, device: torch.device) -> None:
    golden, backbone = load(path, device)
    items, lengths = golden["item_seq_right"], golden["item_seq_len"]
    pairs = torch.arange(len(items)).split(2)
    rows = [torch.cat([items[b, : lengths[b]] for b in pair]) for pair in pairs]
    packed = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True)
    made = packing_of([lengths[pair].tolist() for pair in pairs], packed.shape[1])
    packing = Packing(*(each.to(device) for each in made))
    apart = backbone.all_positions(items, lengths, lengths)[items > 0]
    together = backbone.all_positions(packed, lengths, lengths, None, packing)[packed > 0]
    torch.testing.assert_close(together, apart, atol=ATOL[device.type], rtol=0)
    upstream = torch.randn_like(apart[:, :-1])
    first, second = (
        gradients_of((states[:, :-1] * upstream).mean() + table_of(backbone)[:, -1].sum(), backbone)
        for states in (apart, together)
    )
    for name, gradient in first.items():
        assert_close(second[name], gradient)


@pytest.mark.parametrize("name", ["num_layers", "dropout"])
def test_a_number_out_of_its_range_is_refused(name: str) -> None:
    settings: dict[str, Any] = {name: -1}
    with pytest.raises(ValueError, match=f"{name} must be"):
        LRURec(IdEmbedding(5, 4), 1, 3, **settings)


def test_weights_begin_as_the_authors() -> None:
    torch.manual_seed(0)
    backbone = LRURec(IdEmbedding(1000, 32), 1, 10)
    for name, parameter in backbone.named_parameters():
        if "norm" in name or "log" in name or "item_embedding" in name:
            continue
        values = parameter.detach()[1 if name == "output_bias_I" else 0 :]
        assert float(values.abs().max()) <= 0.04, name
        assert 0.01 < float(values.std()) < 0.025, name
    recurrence = backbone.blocks[0].get_submodule("recurrence")
    assert isinstance(recurrence, lru.Recurrence)
    radius_H = torch.linalg.vector_norm(recurrence.decay().detach(), dim=1)
    assert 0.8 <= float(radius_H.min()) < float(radius_H.max()) <= 0.99
    torch.testing.assert_close(recurrence.gamma_log.detach().exp(), (1 - radius_H**2).sqrt(), atol=1e-5, rtol=1e-4)


def test_dropout_differs_between_positions_and_layers() -> None:
    torch.manual_seed(0)
    backbone = LRURec(IdEmbedding(9, 16), 1, 6, dropout=0.5)
    items, lengths = torch.tensor([[1, 2, 3], [1, 2, 3]]), torch.tensor([3, 3])
    states = backbone.all_positions(items, lengths, lengths)
    assert not torch.equal(states[0], states[1])
    backbone.eval()
    states = backbone.all_positions(items, lengths, lengths)
    assert torch.equal(states[0], states[1])


Forward = Callable[..., Tensor]


def test_both_forms_are_the_same_backbone(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    backbone = LRURec(IdEmbedding(30, 8), 1, 9).eval()
    items = torch.tensor([[3, 1, 4, 1, 5, 9, 2, 6, 5], [8, 9, 7, 0, 0, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0, 0]])
    lengths = torch.tensor([9, 3, 1])
    calls: list[Forward] = [backbone, backbone.all_positions]
    by_steps = [call(items, lengths, lengths) for call in calls]
    monkeypatch.setattr(lru, "goes_by_steps", lambda items_BL: False)
    by_doubling = [call(items, lengths, lengths) for call in calls]
    assert_close(by_doubling[0], by_steps[0])
    assert_close(by_doubling[1][items > 0], by_steps[1][items > 0])
