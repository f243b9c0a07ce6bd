"""Each backbone equals the public implementation, on that one's weights and inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from support.checkout import golden_folder
from support.devices import assert_close, without_dropout
from tslrec.models.backbones.base import Backbone
from tslrec.models.backbones.caser import Caser
from tslrec.models.backbones.fmlp import FMLPRec
from tslrec.models.backbones.gru4rec import GRU4Rec
from tslrec.models.backbones.sasrec import SASRec
from tslrec.models.item_embedding import IdEmbedding

GOLDEN = golden_folder()
pytestmark = pytest.mark.skipif(not GOLDEN.is_dir(), reason="the reference files are not beside the checkout")

ATOL = {"cpu": 2e-5, "cuda": 5e-5}
"""Of user vectors up to 4 and scores up to 22, by type of device. In float32 they are known to 3e-6: so far apart are
these files and the same weights in float64."""

Weights = dict[str, Tensor]


def fmlp_weights(theirs: Weights) -> Weights:
    ours = {
        "item_embedding.weight": theirs["item_embeddings.weight"],
        "position_embedding": theirs["position_embeddings.weight"],
    }
    names = {
        "filterlayer.LayerNorm": "filters.{}.norm",
        "intermediate.dense_1": "feed_forwards.{}.expand",
        "intermediate.dense_2": "feed_forwards.{}.contract",
        "intermediate.LayerNorm": "feed_forwards.{}.norm",
    }
    for kind in ("weight", "bias"):
        ours[f"norm.{kind}"] = theirs[f"LayerNorm.{kind}"]
        for i in range(2):
            for their_name, our_name in names.items():
                ours[f"{our_name.format(i)}.{kind}"] = theirs[f"item_encoder.layer.{i}.{their_name}.{kind}"]
    for i in range(2):
        ours[f"filters.{i}.complex_weight"] = theirs[f"item_encoder.layer.{i}.filterlayer.complex_weight"]
    return ours


def sasrec_weights(theirs: Weights) -> Weights:
    ours = {
        "item_embedding.weight": theirs["item_embedding.weight"],
        "position_embedding": theirs["position_embedding.weight"],
    }
    names = {
        "multi_head_attention.dense": "attention.output",
        "multi_head_attention.LayerNorm": "attention_norm",
        "feed_forward.dense_1": "expand",
        "feed_forward.dense_2": "contract",
        "feed_forward.LayerNorm": "norm",
    }
    for kind in ("weight", "bias"):
        ours[f"norm.{kind}"] = theirs[f"LayerNorm.{kind}"]
        for i in range(2):
            layer = f"trm_encoder.layer.{i}."
            parts = [theirs[f"{layer}multi_head_attention.{part}.{kind}"] for part in ("query", "key", "value")]
            ours[f"blocks.{i}.attention.query_key_value.{kind}"] = torch.cat(parts)
            for their_name, our_name in names.items():
                ours[f"blocks.{i}.{our_name}.{kind}"] = theirs[f"{layer}{their_name}.{kind}"]
    return ours


def gru4rec_weights(theirs: Weights) -> Weights:
    return {name.replace("gru_layers", "gru").replace("dense", "projection"): w for name, w in theirs.items()}


def caser_weights(theirs: Weights) -> Weights:
    ours = {
        "item_embedding.weight": theirs["item_embedding.weight"],
        "user_embedding": theirs["user_embedding.weight"],
        "vertical.weight": theirs["conv_v.weight"][:, 0],
        "vertical.bias": theirs["conv_v.bias"],
    }
    for i in range(50):
        ours[f"horizontal.{i}.weight"] = theirs[f"conv_h.{i}.weight"][:, 0].transpose(1, 2)
        ours[f"horizontal.{i}.bias"] = theirs[f"conv_h.{i}.bias"]
    for kind in ("weight", "bias"):
        ours[f"first.{kind}"] = theirs[f"fc1.{kind}"]
        ours[f"second.{kind}"] = theirs[f"fc2.{kind}"]
    return ours


class PaddedCaser(Caser):
    """RecBole's: padding is a vector like any other, and takes part in the convolutions."""

    def forward(self, items_BL: Tensor, lengths_B: Tensor, users_B: Tensor, table_ID: Tensor | None = None) -> Tensor:
        return super().forward(F.pad(items_BL, (0, self.max_len - items_BL.shape[1])), lengths_B, users_B, table_ID)


CASES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "FMLPRec": (FMLPRec, fmlp_weights, {}),
    "SASRec": (SASRec, sasrec_weights, {}),
    "GRU4Rec": (GRU4Rec, gru4rec_weights, {"gru_size": 64, "num_layers": 2}),
    "GRU4Rec_default": (GRU4Rec, gru4rec_weights, {}),
    "Caser": (PaddedCaser, caser_weights, {"num_vertical": 4, "num_horizontal": 8, "use_user_embedding": True}),
}


@pytest.mark.parametrize("name", CASES)
def test_equals_the_reference(name: str, device: torch.device) -> None:
    backbone_class, translate, numbers = CASES[name]
    with np.load(GOLDEN / f"{name}.npz") as file:
        golden = {key: torch.from_numpy(file[key]).to(device) for key in file.files if key != "meta"}
    backbone: Backbone = backbone_class(IdEmbedding(499, 64), 40, 50, **numbers)
    backbone.load_state_dict(translate({key[2:]: value for key, value in golden.items() if key.startswith("w/")}))
    without_dropout(backbone.to(device))
    items, lengths = golden["item_seq"], golden["item_seq_len"]
    if name == "FMLPRec":
        # The file is padded on the left, our input always on the right.
        column = torch.arange(50, device=device)
        moved = items.gather(1, (column + 50 - lengths[:, None]).clamp(max=49))
        items = torch.where(column < lengths[:, None], moved, 0)
    user = backbone(items, lengths, golden.get("user_id", torch.zeros_like(lengths)))
    table = backbone.item_embedding.table()
    atol = ATOL[device.type]
    torch.testing.assert_close(user, golden["seq_output"], atol=atol, rtol=0)
    torch.testing.assert_close(user @ table.T, golden["scores"], atol=atol, rtol=0)
    # There padding is a candidate of the softmax.
    loss = F.cross_entropy(user @ table.T, golden["target"])
    torch.testing.assert_close(loss, golden["ce_loss"], atol=1e-5, rtol=0)
    loss.backward()
    gradient = next(value for key, value in golden.items() if key.startswith("grad/item_embedding"))
    found = dict(backbone.named_parameters())["item_embedding.weight"].grad
    assert found is not None
    assert_close(found, gradient)
    if name == "Caser":
        torch.testing.assert_close(loss + backbone.regularization(), golden["total_loss"], atol=1e-5, rtol=0)
