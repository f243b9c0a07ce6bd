"""Prompts in shared rows: no token is lost, the prefix is not repeated, and results are those of each prompt alone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tslrec.data.packing import first_fit
from tslrec.llm.loading import load
from tslrec.llm.packing import NO_EXAMPLE
from tslrec.llm.prompt_packing import WIDEST, PackedPrompts, PromptPacker, cheapest_rows, cost, narrowest
from tslrec.llm.prompted import add_lora
from tslrec.llm.text import TextLLM
from tslrec.llm.weights_source import resolve
from tslrec.settings.language_models import LLMConfig, LoraConfig

PREFIX = (7, 1, 2, 3, 4, 5)
REST = [list(range(30, 30 + length)) for length in (9, 3, 17, 5, 8, 4)]
PROMPTS = [
    *(np.array([*PREFIX, *rest]) for rest in REST),
    # Cut on the left: its first token alone is left of the prefix, or nothing is.
    np.array([7, 4, 5, *REST[0]]),
    np.array([4, 5, *REST[1]]),
    # It ends within the prefix.
    np.array([7, 1, 2]),
]


def tokens_of(packed: PackedPrompts, prompt: int) -> list[int]:
    return packed.tokens_RT[packed.examples_RT == prompt].tolist()


@pytest.mark.parametrize("packer", [PromptPacker(PREFIX), PromptPacker(PREFIX, kept=2), PromptPacker(packs=False)])
def test_a_prompt_is_what_it_shares_and_its_own_tokens(packer: PromptPacker) -> None:
    packed = packer(PROMPTS)
    for prompt, whole in enumerate(PROMPTS):
        shared = int(packed.shared_B[prompt])
        assert [*packer.prefix[:shared], *tokens_of(packed, prompt)] == whole.tolist()
        assert packed.positions_RT[packed.examples_RT == prompt].tolist() == list(range(shared, len(whole)))
        assert len(whole) - shared >= packer.kept
    assert packed.examples_RT.flatten()[packed.last_B].tolist() == list(range(len(PROMPTS)))
    assert packed.tokens_RT.flatten()[packed.last_B].tolist() == [int(whole[-1]) for whole in PROMPTS]
    assert (packed.tokens_RT[packed.examples_RT == NO_EXAMPLE] == 0).all()


def test_what_is_shared_is_counted_from_the_left() -> None:
    assert PromptPacker(PREFIX)(PROMPTS).shared_B.tolist() == [6, 6, 6, 6, 6, 6, 1, 0, 2]
    assert PromptPacker(PREFIX, kept=2)(PROMPTS).shared_B.tolist()[-1] == 1


def test_no_prompts_have_no_rows() -> None:
    assert PromptPacker(PREFIX)([]).num_tokens == 0


def test_nearly_no_token_is_padding() -> None:
    # Batches of sixteen prompts of LlamaRec: up to twenty items of a history, twenty candidates, titles of 8 to 32
    # tokens. One prompt to a row, a quarter would be padding.
    draw = np.random.default_rng(0)
    tokens, cells, padded = 0, 0, 0
    for _ in range(20):
        titles = 20 + draw.integers(1, 21, size=16)
        lengths = np.array([int(np.minimum(32, draw.geometric(0.1, size=count) + 7).sum()) for count in titles])
        _, _, (rows, width) = cheapest_rows(lengths)
        assert width <= WIDEST * lengths.max()
        tokens, cells, padded = tokens + lengths.sum(), cells + rows * width, padded + 16 * lengths.max()
    assert tokens / cells >= 0.93
    assert tokens / padded < 0.8


def make_model(*, shared_prefix: bool, dropout: float = 0.0) -> TextLLM:
    """A tiny model whose LoRA is not at its initial values: equal arguments give equal models."""
    llm = LLMConfig(name="tiny", random={}, shared_prefix=shared_prefix)
    base, _ = load(resolve(llm, Path("unused")), dtype="float32")
    torch.manual_seed(0)
    head_VH = torch.randn(256, 32)
    model = TextLLM(
        add_lora(base, LoraConfig(2, 4, dropout, ["q_proj", "v_proj"])), PREFIX, head_VH, shared_prefix=shared_prefix
    )
    for parameter in model.trainable_parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def packed_for(model: TextLLM, prompts: list[NDArray[np.int64]]) -> PackedPrompts:
    return PromptPacker(PREFIX, kept=2)(prompts) if model.shared_prefix else PromptPacker(packs=False)(prompts)


def test_packed_prompts_give_the_states_and_gradients_of_whole_ones() -> None:
    prompts = PROMPTS[:-1]
    labels = torch.tensor([[65, 66]] * len(prompts))
    found = []
    for shared in (True, False):
        model = make_model(shared_prefix=shared)
        states = model.end_states(packed_for(model, prompts), count=2)
        model.loss(states, labels).backward()
        found.append((states.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}))
    torch.testing.assert_close(found[0][0], found[1][0], atol=2e-5, rtol=0)
    assert found[0][1].keys() == found[1][1].keys()
    for name, gradient in found[1][1].items():
        difference = float((found[0][1][name] - gradient).norm())
        assert difference <= 1e-4 * float(gradient.norm()) + 1e-7, name


def test_a_prefix_that_was_run_before_gives_the_same_scores() -> None:
    model = make_model(shared_prefix=True).eval()
    packed = packed_for(model, PROMPTS[:-1])
    letters = torch.tensor([65, 70, 80])
    with torch.no_grad():
        at_once, after = (
            model.token_scores(model.end_states(packed, prefix)[:, 0], letters) for prefix in (None, model.run_prefix())
        )
        whole = model.end_states(packed)[:, 0] @ model.head_VH().T
    torch.testing.assert_close(at_once, after, atol=1e-5, rtol=0)
    torch.testing.assert_close(at_once, whole[:, letters])


def test_the_head_is_frozen_and_the_embeddings_are_it_where_there_is_none() -> None:
    model = make_model(shared_prefix=True)
    assert all("lora_" in name for name, p in model.named_parameters() if p.requires_grad)
    tied = TextLLM(model.adapted, PREFIX)
    assert tied.head_VH() is tied.llm.get_input_embeddings().weight
    assert replace(PromptPacker(PREFIX), packs=False)(PROMPTS).tokens_RT.shape[0] == len(PROMPTS)


@pytest.mark.parametrize("tokens", [1, 300, 10_000])
def test_groups_of_rows_give_the_states_of_all(tokens: int) -> None:
    model = make_model(shared_prefix=True).eval()
    packed = packed_for(model, PROMPTS[:-1] * 3)
    groups = packed.groups(tokens)
    with torch.no_grad():
        whole = model.end_states(packed, count=2)
        parts = [model.end_states(part, count=2) for part, _ in groups]
    width = packed.tokens_RT.shape[1]
    assert all(len(part.tokens_RT) == 1 or part.tokens_RT.numel() <= tokens for part, _ in groups)
    assert len(groups) == -(-len(packed.tokens_RT) // max(1, tokens // width))
    places = torch.cat([places for _, places in groups])
    assert sorted(places.tolist()) == list(range(len(packed.last_B)))
    torch.testing.assert_close(torch.cat(parts), whole[places], atol=2e-5, rtol=0)


def naive_first_fit(lengths_B: NDArray[np.int64], width: int) -> list[tuple[int, int]]:
    """The row and the column of each sequence: the longest first, each into the first row with room."""
    room: list[int] = []
    found = [(0, 0)] * len(lengths_B)
    for b in np.argsort(-lengths_B, kind="stable"):
        row = next((row for row, free in enumerate(room) if free >= lengths_B[b]), len(room))
        if row == len(room):
            room.append(width)
        found[b] = row, width - room[row]
        room[row] -= int(lengths_B[b])
    return found


def test_rows_are_filled_in_the_order_of_lengths() -> None:
    draws = np.random.default_rng(0)
    for _ in range(200):
        lengths_B = draws.integers(1, draws.integers(2, 50), draws.integers(1, 60))
        width = int(lengths_B.max() + draws.integers(0, 40))
        layout = first_fit(lengths_B, width)
        assert list(zip(layout.rows_B, layout.columns_B, strict=True)) == naive_first_fit(lengths_B, width)


def test_large_batches_are_packed_as_well_as_by_trying_every_number_of_rows() -> None:
    lengths_B = np.random.default_rng(1).integers(5, 60, 700)
    layout = cheapest_rows(lengths_B)
    total, longest = int(lengths_B.sum()), int(lengths_B.max())
    every = [narrowest(lengths_B, rows) for rows in range(-(-total // (WIDEST * longest)), 701, 7)]
    assert cost(*layout.shape) <= 1.01 * min(cost(*each.shape) for each in every)
