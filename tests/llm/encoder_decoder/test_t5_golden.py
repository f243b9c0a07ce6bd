"""The model equals the public code of P5 and of POD, on that one's weights and inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from support.devices import assert_close
from support.rival_files import ATOL, FILES, Golden, model_of, needs_files, read, under, unpadded
from tslrec.llm.encoder_decoder.model import EncoderDecoder
from tslrec.llm.encoder_decoder.packing import Batch, Packer
from tslrec.llm.encoder_decoder.t5_weights import from_t5_names

pytestmark = needs_files


def p5_batch(golden: Golden, words: str) -> Batch:
    mask = golden["attention_mask"]
    return Packer()(
        unpadded(golden["input_ids"], mask),
        unpadded(golden[words], mask),
        unpadded(golden["labels"], golden["label_mask"]),
    )


def pod_batch(golden: Golden, *, released: bool) -> Batch:
    mask, labels = golden["attention_mask"], golden["labels"]
    packer = Packer(num_prompts=golden["meta"]["prompts_per_task"], loss_by_rows=False, released=released)
    return packer(
        unpadded(golden["input_ids"], mask),
        unpadded(golden["whole_word_ids"], mask),
        unpadded(labels, labels != 0),
        golden["task"].tolist(),
    )


def at_labels(batch: Batch, values_BT: NDArray[np.float32]) -> Tensor:
    """The file's values where our batch has labels, in its order."""
    rows, columns = np.divmod(batch.places_M.cpu().numpy(), batch.inputs_BT.shape[1])
    return torch.from_numpy(values_BT[batch.sources.order_B.cpu().numpy()[rows], columns])


def compare_logits(model: EncoderDecoder, batch: Batch, expected_BTV: NDArray[np.float32], atol: float) -> Tensor:
    found = model.label_logits(batch).cpu()
    torch.testing.assert_close(found, at_labels(batch, expected_BTV), atol=atol, rtol=0)
    return found


def compare_gradients(model: EncoderDecoder, golden: Golden, prefix: str) -> None:
    """Norms of all gradients, and whole gradients where the file has them.

    The file has a norm for each of the matrices that are joined here.
    """
    found = {name: parameter.grad.cpu() for name, parameter in model.named_parameters() if parameter.grad is not None}
    norms = {name: float(value) for name, value in under(golden, f"{prefix}gradnorm/").items()}
    squares = from_t5_names({name: torch.tensor([norm**2]) for name, norm in norms.items()})
    assert set(squares) == set(found)
    for name, square_P in squares.items():
        parts = found[name].chunk(len(square_P)) if len(square_P) > 1 else [found[name]]
        norms_P = torch.stack([part.norm() for part in parts])
        torch.testing.assert_close(norms_P, square_P.sqrt().to(norms_P), rtol=1e-4, atol=1e-6, msg=name)
    for name, gradient in from_t5_names(under(golden, f"{prefix}grad/")).items():
        assert_close(found[name], gradient)


@pytest.mark.parametrize("path", FILES["P5"], ids=lambda path: path.parent.name)
@pytest.mark.parametrize(
    ("words", "suffix", "prefix"), [("whole_word_ids", "", ""), ("whole_word_ids_clean", "_clean", "clean_")]
)
def test_p5_equals_the_reference(path: Path, words: str, suffix: str, prefix: str, device: torch.device) -> None:
    golden = read(path)
    model, atol = model_of(golden, device), ATOL[device.type]
    batch = p5_batch(golden, words).to(device)
    logits_MV = compare_logits(model, batch, golden[f"logits{suffix}"], atol)
    if not suffix:
        loss_M = F.cross_entropy(logits_MV, batch.labels_M.cpu(), reduction="none")
        torch.testing.assert_close(loss_M, at_labels(batch, golden["token_loss"]), atol=atol, rtol=0)
        states = batch.sources.rows(model.encode(batch.sources))
        for found, expected, mask in zip(states, golden["encoder"], golden["attention_mask"], strict=True):
            torch.testing.assert_close(found.cpu(), torch.from_numpy(expected[mask == 1]), atol=atol, rtol=0)
    loss = model(batch)
    torch.testing.assert_close(loss.cpu(), torch.from_numpy(golden[f"loss{suffix}"]), atol=1e-5, rtol=0)
    loss.backward()
    compare_gradients(model, golden, prefix)


@pytest.mark.parametrize("path", FILES["POD"], ids=lambda path: path.parent.name)
@pytest.mark.parametrize("released", [True, False])
def test_pod_equals_the_reference(path: Path, released: bool, device: torch.device) -> None:
    golden = read(path)
    model, atol = model_of(golden, device), ATOL[device.type]
    batch = pod_batch(golden, released=released).to(device)
    suffix = "" if released else "_clean"
    compare_logits(model, batch, golden[f"logits{suffix}"], atol)
    states = batch.sources.rows(model.encode(batch.sources))
    embedded = batch.sources.rows(model.embed(batch.sources))
    for b, mask in enumerate(golden["full_mask"] == 1):
        torch.testing.assert_close(states[b].cpu(), torch.from_numpy(golden["encoder"][b][mask]), atol=atol, rtol=0)
        torch.testing.assert_close(embedded[b].cpu(), torch.from_numpy(golden["inputs_embeds"][b][mask]))
    loss = model(batch)
    torch.testing.assert_close(loss.cpu(), torch.from_numpy(golden[f"loss{suffix}"]), atol=1e-5, rtol=0)
    loss.backward()
    compare_gradients(model, golden, "" if released else "clean_")
