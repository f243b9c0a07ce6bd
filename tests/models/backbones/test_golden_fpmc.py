"""FPMC equals RecBole's: user vectors, scores, both losses and the gradients of its four tables."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from support.checkout import golden_folder
from support.devices import assert_close
from tslrec.models.backbones.fpmc import FPMC
from tslrec.models.item_embedding import IdEmbedding
from tslrec.training.pairwise_loss import pairwise_loss

FILES = sorted((golden_folder() / "rivals").rglob("FPMC*.npz"))
pytestmark = [
    pytest.mark.skipif(not FILES, reason="the reference files are not beside the checkout"),
    pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}"),
]
ATOL = 2e-5


def load(path: object, device: torch.device) -> dict[str, Tensor]:
    with np.load(str(path)) as file:
        return {key: torch.from_numpy(file[key]).to(device) for key in file.files if key != "meta"}


def build(golden: dict[str, Tensor]) -> FPMC:
    users, items = golden["w/UI_emb.weight"], golden["w/LI_emb.weight"]
    embedding = IdEmbedding(len(items) - 1, items.shape[1])
    fpmc = FPMC(embedding, len(users), golden["item_seq"].shape[1]).to(items.device)
    output = torch.cat([golden["w/IU_emb.weight"], golden["w/IL_emb.weight"]], dim=1)
    fpmc.load_state_dict({"item_embedding.weight": items, "user_embedding": users, "own_output_IE": output})
    return fpmc


def user_vectors(fpmc: FPMC, golden: dict[str, Tensor]) -> Tensor:
    return fpmc(golden["item_seq"], golden["item_seq_len"], golden["user_id"])


def assert_gradients(fpmc: FPMC, golden: dict[str, Tensor], prefix: str) -> None:
    """All four tables; a second look-up of theirs in LI would show there."""
    of_output = fpmc.own_output_IE.grad
    assert of_output is not None
    (of_input,) = (each.grad for each in fpmc.item_embedding.parameters())
    iu, il = of_output.chunk(2, dim=1)
    for name, found in {"UI": fpmc.user_embedding.grad, "IU": iu, "LI": of_input, "IL": il}.items():
        assert found is not None
        assert_close(found, golden[f"{prefix}grad/{name}_emb.weight"])
        torch.testing.assert_close(
            torch.linalg.vector_norm(found), golden[f"{prefix}gradnorm/{name}_emb.weight"], atol=ATOL, rtol=1e-5
        )


def test_user_vectors_and_scores(path: object, device: torch.device) -> None:
    golden = load(path, device)
    fpmc = build(golden)
    user = user_vectors(fpmc, golden)
    torch.testing.assert_close(user, golden["seq_output"], atol=ATOL, rtol=0)
    scores = user @ fpmc.output_table(fpmc.item_embedding.table()).T
    torch.testing.assert_close(scores, golden["scores"], atol=ATOL, rtol=0)
    for name, items in {"pos_score": golden["target"], "neg_score": golden["neg_target"]}.items():
        torch.testing.assert_close(scores.gather(1, items[:, None])[:, 0], golden[name], atol=ATOL, rtol=0)


def test_softmax(path: object, device: torch.device) -> None:
    golden = load(path, device)
    fpmc = build(golden)
    # There padding is a candidate of the softmax.
    loss = F.cross_entropy(user_vectors(fpmc, golden) @ fpmc.own_output_IE.T, golden["target"])
    torch.testing.assert_close(loss, golden["ce_loss"], atol=1e-5, rtol=0)
    loss.backward()
    assert_gradients(fpmc, golden, "")


def test_bpr(path: object, device: torch.device) -> None:
    golden = load(path, device)
    fpmc = build(golden)
    summed = pairwise_loss(user_vectors(fpmc, golden), fpmc.own_output_IE, golden["target"], golden["neg_target"])
    loss = summed / len(golden["target"])
    torch.testing.assert_close(loss, golden["bpr_loss"], atol=1e-5, rtol=0)
    loss.backward()
    assert_gradients(fpmc, golden, "bpr_")
