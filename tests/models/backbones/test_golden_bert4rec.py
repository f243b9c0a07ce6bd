"""BERT4Rec equals RecBole's by `recbole_rules`: states, user vectors, scores, losses and gradients, and its masks."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from support.checkout import golden_folder
from support.devices import assert_close, without_dropout
from tslrec.models.backbones.bert4rec import BERT4Rec
from tslrec.models.item_embedding import IdEmbedding

FILES = sorted((golden_folder() / "rivals").rglob("BERT4Rec*.npz"))
pytestmark = pytest.mark.skipif(not FILES, reason="the reference files are not beside the checkout")
ATOL = {"cpu": 2e-5, "cuda": 5e-5}
KINDS = ("", "ft_")
"""Items masked at random, and the last item masked."""


@dataclass
class Case:
    """A file and the model with its weights."""

    golden: dict[str, Tensor]
    numbers: dict[str, Any]
    model: BERT4Rec

    def __getitem__(self, key: str) -> Tensor:
        return self.golden[key]

    @property
    def output(self) -> Tensor:
        return self.model.output_table(self.model.item_embedding.table())

    def shown(self, kind: str) -> Tensor:
        """The masked sequences as our input: 0 for a mask."""
        items = self[f"{kind}masked_item_seq"]
        return torch.where(items == self.numbers["mask_token"], 0, items)

    def states(self, kind: str) -> Tensor:
        items = self.shown(kind)
        return self.model.all_positions(items, self["item_seq_len"], torch.zeros_like(self["item_seq_len"]))

    def user(self) -> Tensor:
        lengths = self["item_seq_len"]
        user: Tensor = self.model(self["item_seq"], lengths, torch.zeros_like(lengths))
        return user

    def targets(self, kind: str) -> Tensor:
        """The items that count by our rule, `[B, L]`."""
        lengths, items = self["item_seq_len"].cpu().numpy(), self["item_seq"].cpu().numpy()
        is_item = np.arange(items.shape[1]) < lengths[:, None]
        masked = (self.shown(kind) == 0).cpu().numpy()[is_item]
        found = np.zeros_like(items)
        found[is_item] = np.where(self.model.masking.counted(masked, lengths), items[is_item], 0)
        return torch.from_numpy(found).to(self["item_seq"].device)


@pytest.fixture(params=FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def case(request: pytest.FixtureRequest, device: torch.device) -> Case:
    path: Path = request.param
    with np.load(path) as file:
        golden = {key: torch.from_numpy(file[key]).to(device) for key in file.files if key != "meta"}
        meta = json.loads(str(file["meta"]))
    sizes = meta["config"]
    model = BERT4Rec(
        IdEmbedding(meta["n_items_incl_pad"] - 1, sizes["hidden_size"]),
        1,
        meta["max_len"],
        num_layers=sizes["n_layers"],
        num_heads=sizes["n_heads"],
        inner_size=sizes["inner_size"],
        mask_ratio=sizes["mask_ratio"],
        recbole_rules=True,
    )
    model.load_state_dict(ours({key[2:]: value for key, value in golden.items() if key.startswith("w/")}))
    without_dropout(model.to(device))
    return Case(golden, meta, model)


def ours(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Their tensors, or gradients, by our names."""
    items = theirs["item_embedding.weight"]
    found = {
        "item_embedding.weight": items[:-1],
        "mask_D": items[-1],
        "position_embedding": theirs["position_embedding.weight"],
        "output_bias_I": theirs["output_bias"],
    }
    names = {
        "multi_head_attention.dense": "attention.output",
        "multi_head_attention.LayerNorm": "attention_norm",
        "feed_forward.dense_1": "expand",
        "feed_forward.dense_2": "contract",
        "feed_forward.LayerNorm": "norm",
    }
    layers = {int(key.split(".")[2]) for key in theirs if key.startswith("trm_encoder.layer.")}
    for kind in ("weight", "bias"):
        found[f"norm.{kind}"] = theirs[f"LayerNorm.{kind}"]
        found[f"output.{kind}"] = theirs[f"output_ffn.{kind}"]
        found[f"output_norm.{kind}"] = theirs[f"output_ln.{kind}"]
        for layer in layers:
            prefix = f"trm_encoder.layer.{layer}."
            parts = [theirs[f"{prefix}multi_head_attention.{part}.{kind}"] for part in ("query", "key", "value")]
            found[f"blocks.{layer}.attention.query_key_value.{kind}"] = torch.cat(parts)
            for their_name, our_name in names.items():
                found[f"blocks.{layer}.{our_name}.{kind}"] = theirs[f"{prefix}{their_name}.{kind}"]
    return found


def loss_of(case: Case, kind: str) -> Tensor:
    """Mean over the targets; there padding is a candidate of the softmax."""
    states, targets = case.states(kind), case.targets(kind)
    return F.cross_entropy(states[targets > 0] @ case.output.T, targets[targets > 0])


@pytest.mark.parametrize("kind", KINDS)
def test_the_masks_that_count(case: Case, kind: str) -> None:
    index, items = case[f"{kind}masked_index"], case[f"{kind}pos_items"]
    expected = torch.zeros_like(case["item_seq"])
    row, column = (index > 0).nonzero(as_tuple=True)
    expected[row, index[row, column]] = items[row, column]
    assert torch.equal(case.targets(kind), expected)


def test_states_of_masked_rows(case: Case) -> None:
    is_item = torch.arange(case["item_seq"].shape[1], device=case["item_seq"].device) < case["item_seq_len"][:, None]
    found, expected = case.states("")[..., :-1][is_item], case["masked_hidden"][is_item]
    torch.testing.assert_close(found, expected, atol=ATOL[found.device.type], rtol=0)


def test_user_vectors_and_scores(case: Case) -> None:
    user = case.user()
    atol = ATOL[user.device.type]
    torch.testing.assert_close(user[:, :-1], case["seq_output"], atol=atol, rtol=0)
    torch.testing.assert_close(user @ case.output.T, case["scores"], atol=atol, rtol=0)


def test_the_input_of_a_recommendation(case: Case) -> None:
    items, lengths = case.model.with_mask(case["item_seq"], case["item_seq_len"])
    expected = case["test_item_seq"]
    assert torch.equal(lengths, (expected > 0).sum(dim=1))
    width = items.shape[1]
    assert torch.equal(items, torch.where(expected == case.numbers["mask_token"], 0, expected)[:, :width])
    assert not expected[:, width:].any()


@pytest.mark.parametrize("kind", KINDS)
def test_cross_entropy(case: Case, kind: str) -> None:
    loss = loss_of(case, kind)
    torch.testing.assert_close(loss, case[f"{kind}ce_loss"], atol=1e-5, rtol=0)


def test_bpr(case: Case) -> None:
    states, targets = case.states(""), case.targets("")
    others = torch.zeros_like(targets)
    row, column = (case["masked_index"] > 0).nonzero(as_tuple=True)
    others[row, case["masked_index"][row, column]] = case["neg_items"][row, column]
    user = states[targets > 0]
    margin = (user * (case.output[targets[targets > 0]] - case.output[others[targets > 0]])).sum(dim=1)
    torch.testing.assert_close(F.softplus(-margin).mean(), case["bpr_loss"], atol=1e-5, rtol=0)


def gradients(model: BERT4Rec) -> dict[str, Tensor]:
    found = {name: parameter.grad for name, parameter in model.named_parameters()}
    return {name: each for name, each in found.items() if each is not None}


def test_gradients_of_the_masked_loss(case: Case) -> None:
    loss_of(case, "").backward()
    found = gradients(case.model)
    expected = ours({key[5:]: value for key, value in case.golden.items() if key.startswith("grad/")})
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert_close(found[name], value)
    assert_norms(case, "gradnorm/", found)


def test_gradients_of_the_loss_at_a_recommendation(case: Case) -> None:
    loss = F.cross_entropy(case.user() @ case.output.T, case["target"])
    torch.testing.assert_close(loss, case["last_ce_loss"], atol=1e-5, rtol=0)
    loss.backward()
    assert_norms(case, "last_gradnorm/", gradients(case.model))


def assert_norms(case: Case, prefix: str, found: dict[str, Tensor]) -> None:
    """Norms of what ours splits or joins are put together from squares."""
    squares = {key[len(prefix) :]: value.square() for key, value in case.golden.items() if key.startswith(prefix)}
    squares["item_embedding.weight"] -= found["mask_D"].square().sum()
    expected = ours_of_squares(squares)
    for name, square in expected.items():
        ours_norm = torch.linalg.vector_norm(found[name])
        torch.testing.assert_close(ours_norm, square.clamp_min(0).sqrt(), atol=5e-5, rtol=1e-4)


def ours_of_squares(theirs: dict[str, Tensor]) -> dict[str, Tensor]:
    shaped = {name: each[None] for name, each in theirs.items()}
    # `ours` cuts the mask's row off the table, whose square is subtracted already.
    shaped["item_embedding.weight"] = torch.cat([shaped["item_embedding.weight"], shaped["output_bias"]])
    found = {name: each.sum() for name, each in ours(shaped).items()}
    del found["mask_D"]
    return found
