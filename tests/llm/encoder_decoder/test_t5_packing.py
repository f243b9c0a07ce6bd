"""Sources and targets in a batch give what each gives alone, and padding is next to none."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from support.small_t5 import NUM_PROMPTS, NUM_TASKS, random_model, random_tokens
from tslrec.llm.encoder_decoder.chunks import few_chunks
from tslrec.llm.encoder_decoder.packing import Packer
from tslrec.llm.encoder_decoder.shape import END


@settings(max_examples=15, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(1, 6)), min_size=1, max_size=12), st.booleans(), st.booleans()
)
def test_a_batch_gives_what_each_source_gives_alone(
    lengths: list[tuple[int, int]], loss_by_rows: bool, with_prompts: bool
) -> None:
    rng, model = np.random.default_rng(len(lengths)), random_model(0, NUM_PROMPTS * NUM_TASKS * with_prompts)
    packer = Packer(num_prompts=NUM_PROMPTS * with_prompts, loss_by_rows=loss_by_rows)
    tokens = [random_tokens(rng, source) for source, _ in lengths]
    words = [rng.integers(0, 64, source) for source, _ in lengths]
    targets = [random_tokens(rng, target) for _, target in lengths]
    tasks = rng.integers(0, NUM_TASKS, len(lengths)).tolist() if with_prompts else None
    batch = packer(tokens, words, targets, tasks)
    states = batch.sources.rows(model.encode(batch.sources))
    losses = []
    for b in range(len(lengths)):
        one = slice(b, b + 1)
        alone = packer(tokens[one], words[one], targets[one], tasks[one] if tasks else None)
        torch.testing.assert_close(states[b], model.encode(alone.sources), atol=1e-5, rtol=0)
        losses.append(model(alone))
    each_B = torch.stack(losses)
    shares_B = torch.tensor([1.0 if loss_by_rows else target for _, target in lengths])
    torch.testing.assert_close(model(batch), (each_B * shares_B).sum() / shares_B.sum(), atol=1e-5, rtol=0)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(1, 300), max_size=80))
def test_chunks_hold_every_source_once_and_cost_no_more_than_one_chunk(lengths: list[int]) -> None:
    lengths_B = np.array(lengths, dtype=np.int64)
    order_B, chunks = few_chunks(lengths_B)
    assert sorted(order_B.tolist()) == list(range(len(lengths)))
    first = start = 0
    for chunk in chunks:
        within = lengths_B[order_B[first : first + chunk.rows]]
        assert chunk.start == start
        assert within.max() == chunk.width
        assert chunk.padded == (within.min() < chunk.width)
        first, start = first + chunk.rows, start + chunk.rows * chunk.width
    assert first == len(lengths)
    assert start <= len(lengths) * max(lengths, default=0)


def test_sources_of_one_length_are_one_chunk_without_a_mask() -> None:
    _, chunks = few_chunks(np.full(7, 5))
    assert [tuple(chunk) for chunk in chunks] == [(0, 7, 5, False)]


def test_prefixes_of_very_different_length_have_little_padding() -> None:
    lengths_B = 20 + 7 * np.minimum(np.random.default_rng(0).geometric(1 / 6, 64), 20)
    _, chunks = few_chunks(lengths_B)
    computed = sum(chunk.rows * chunk.width for chunk in chunks)
    assert computed < 1.1 * lengths_B.sum() < 0.6 * len(lengths_B) * lengths_B.max()


def test_released_results_depend_on_the_batch() -> None:
    rng, model = np.random.default_rng(0), random_model()
    packer = Packer(num_prompts=NUM_PROMPTS, loss_by_rows=False, released=True)
    tokens, targets = [random_tokens(rng, 5), random_tokens(rng, 30)], [random_tokens(rng, 2), random_tokens(rng, 4)]
    words = [np.zeros(len(each), dtype=np.int64) for each in tokens]
    batch = packer(tokens, words, targets, [0, 1])
    assert len(batch.labels_M) == 2 * 4
    alone = packer(tokens[:1], words[:1], targets[:1], [0])
    difference = (model.label_logits(batch)[:2] - model.label_logits(alone)).abs().max()
    assert difference > 1e-3


def test_tasks_and_prompts_belong_together() -> None:
    tokens = [np.array([END])]
    with pytest.raises(ValueError, match="tasks"):
        Packer(num_prompts=3).sources(tokens, tokens)
    with pytest.raises(ValueError, match="tasks"):
        Packer().sources(tokens, tokens, [0])
