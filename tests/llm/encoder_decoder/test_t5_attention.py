"""Attention in training, a few rows at a time and with dropped weights, is the attention of an evaluation otherwise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from support.small_t5 import NUM_PROMPTS, NUM_TASKS, SHAPE, random_model, random_tokens
from tslrec.llm.encoder_decoder import chunks as chunks_file
from tslrec.llm.encoder_decoder.attention import attend
from tslrec.llm.encoder_decoder.chunks import few_chunks, in_cache
from tslrec.llm.encoder_decoder.packing import Packer
from tslrec.models.dropout import STEPS


@given(st.lists(st.integers(1, 300), min_size=1, max_size=80), st.integers(1, 12))
def test_cut_chunks_are_the_rows_of_the_chunks_in_their_order(lengths: list[int], heads: int) -> None:
    _, chunks = few_chunks(np.array(lengths, dtype=np.int64))
    cut = in_cache(chunks, heads)
    rows = [(each.start + row * each.width, each.width) for each in chunks for row in range(each.rows)]
    assert [(each.start + row * each.width, each.width) for each in cut for row in range(each.rows)] == rows
    assert all(each.rows == 1 or each.rows * heads * each.width**2 <= chunks_file.CACHED_SCORES for each in cut)


@pytest.mark.parametrize("cross_padding", [False, True])
def test_a_training_step_that_drops_nothing_has_the_loss_and_gradients_of_an_evaluation(
    monkeypatch: pytest.MonkeyPatch, cross_padding: bool
) -> None:
    monkeypatch.setattr(chunks_file, "CACHED_SCORES", 2000)
    # So small a probability is rounded to none, yet it takes the steps of a training.
    rng, evaluated, trained = np.random.default_rng(0), random_model(), random_model(dropout=0.1 / STEPS).train()
    lengths = rng.integers(1, 40, 20)
    batch = Packer(num_prompts=NUM_PROMPTS, loss_by_rows=False)(
        [random_tokens(rng, length) for length in lengths],
        [rng.integers(0, 64, length) for length in lengths],
        [random_tokens(rng, length) for length in rng.integers(2, 6, 20)],
        rng.integers(0, NUM_TASKS, 20).tolist(),
    )
    batch = batch._replace(sources=batch.sources._replace(cross_padding=cross_padding))
    assert len(in_cache(batch.sources.chunks, SHAPE.num_heads)) > len(batch.sources.chunks)
    losses = [model(batch) for model in (evaluated, trained)]
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(losses[1], losses[0], atol=1e-6, rtol=0)
    for (name, expected), parameter in zip(evaluated.named_parameters(), trained.parameters(), strict=True):
        torch.testing.assert_close(parameter.grad, expected.grad, atol=1e-6, rtol=1e-4, msg=name)


def test_attention_drops_the_share_of_its_weights_and_scales_the_others() -> None:
    torch.manual_seed(0)
    rows, queries, keys, dropout = 20, 30, 50, 0.25
    query, key = torch.randn(rows, queries, 2, 4), torch.randn(rows, keys, 2, 4)
    # The values are the unit vectors, so that each number of the output is one weight.
    value = torch.eye(keys)[None, :, None].expand(rows, keys, 2, keys)
    bias = torch.randn(1, 2, queries, keys)
    whole, dropped = (attend(query, key, value, bias, p).unflatten(-1, (2, keys)) for p in (0.0, dropout))
    kept = dropped != 0
    assert abs(1 - kept.float().mean().item() - dropout) < 0.01
    torch.testing.assert_close(dropped[kept], whole[kept] / (1 - dropout), atol=1e-6, rtol=1e-4)
