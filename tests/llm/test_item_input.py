"""An item's tokens: its number, the words of its title, or both; packed, each example is as it is alone.

Shapes: S tokens of a whole sequence, H hidden size of the language model.
"""

from __future__ import annotations

from types import MethodType
from typing import cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from transformers.models.llama.modeling_llama import LlamaRMSNorm

from support.tiny_model import NUM_ITEMS, make_model
from tslrec.llm.item_input import EMBEDDINGS, ItemInput
from tslrec.llm.packing import PADDING_TOKEN, Packer
from tslrec.llm.readout import Readout
from tslrec.stages.sft.model import PreferenceLLM

HISTORIES = [np.array(history) for history in ([3, 1, 4], [1], [5, 9, 2, 6, 5, 3], [5, 8], list(range(1, 18)))]
FORMS = (False, True)
"""Values of `has_embedding`: `title` and `both`."""


def titles() -> list[NDArray[np.int64]]:
    """Titles of one to five words, among them token 0."""
    draw = np.random.default_rng(0)
    return [np.zeros(0, dtype=np.int64), *(draw.integers(0, 256, 1 + item % 5) for item in range(NUM_ITEMS))]


def items_of(has_embedding: bool) -> ItemInput:
    return ItemInput(has_embedding, titles())


def titled_model(has_embedding: bool, **changes: object) -> PreferenceLLM:
    """A model that reads titles, in float64, also inside its norms."""
    model = make_model(items=items_of(has_embedding), **changes)  # type: ignore[arg-type]

    def forward(self: LlamaRMSNorm, hidden: Tensor) -> Tensor:
        return F.rms_norm(hidden, hidden.shape[-1:], self.weight, self.variance_epsilon)

    for module in model.modules():
        if isinstance(module, LlamaRMSNorm):
            setattr(module, "forward", MethodType(forward, module))  # noqa: B010
    return model.double()


@pytest.mark.parametrize("row_length", [None, 16, 64])
def test_an_item_is_its_number_and_then_its_words(row_length: int | None) -> None:
    words = [np.array(each, dtype=np.int64) for each in ([], [7, 0], [2])]
    both = Packer(2, row_length, ItemInput(True, words))([np.array([2, 1]), np.array([1])])
    title = Packer(2, row_length, ItemInput(False, words))([np.array([2, 1]), np.array([1])])
    # The response's two tokens are -1 and -2, word v is -3 - v.
    expected = {"both": [[2, -5, 1, -10, -3, -1, -2], [1, -10, -3, -1, -2]]}
    expected["title"] = [[-5, -10, -3, -1, -2], [-10, -3, -1, -2]]
    for packed, lists in ((both, expected["both"]), (title, expected["title"])):
        for example, tokens in enumerate(lists):
            mine = packed.examples_RT == example
            assert packed.tokens_RT[mine].tolist() == tokens
            assert packed.positions_RT[mine].tolist() == list(range(len(tokens)))
        assert packed.tokens_RT.flatten()[packed.last_B].tolist() == [-2, -2]
        assert packed.num_tokens == sum(map(len, lists)) == int((packed.tokens_RT != PADDING_TOKEN).sum())


def test_a_table_in_another_order_keeps_each_items_title() -> None:
    ours = items_of(True)
    moved = ours.of_items(np.array([9, 4]))
    assert moved.titles is not None
    assert ours.titles is not None
    np.testing.assert_array_equal(moved.titles[1], ours.titles[9])
    np.testing.assert_array_equal(moved.titles[2], ours.titles[4])
    assert EMBEDDINGS.of_items(np.array([9])) is EMBEDDINGS


def test_the_digest_is_of_the_words_item_by_item() -> None:
    def digest(*words: list[int]) -> str | None:
        padded = [np.array(each, dtype=np.int64) for each in ([], *words)]
        return ItemInput(True, padded).digest_titles(range(1, len(padded)))

    found = [digest([1, 2], [3]), digest([1], [2, 3]), digest([12], [3]), digest([3], [1, 2])]
    assert len(set(found)) == len(found)
    assert digest([1, 2], [3]) == found[0]
    assert EMBEDDINGS.digest_titles([1]) is None


def whole_sequence(model: PreferenceLLM, history: NDArray[np.int64], has_embedding: bool) -> Tensor:
    """The embedded prompt of one example `[S, H]`, put together without a packer."""
    tokens = model.llm.get_input_embeddings()
    parts = [tokens(model.instruction_P)]
    for item in history:
        if has_embedding:
            assert model.item_projection is not None
            parts.append(model.item_projection(model.items_ID[[int(item)]]))
        parts.append(tokens(torch.from_numpy(titles()[item])))
    return torch.cat([*parts, tokens(model.response_J)])


@pytest.mark.parametrize("has_embedding", FORMS)
@pytest.mark.parametrize("shared_prefix", [True, False])
@torch.no_grad()
def test_packed_states_are_those_of_whole_sequences_that_run_alone(has_embedding: bool, shared_prefix: bool) -> None:
    model = titled_model(has_embedding, shared_prefix=shared_prefix)
    packed = model(model.packer(HISTORIES)).knowledge_BH
    at_item = model.forward_with_readout(model.packer(HISTORIES), None, Readout("last", "item")).knowledge_BH
    for example, history in enumerate(HISTORIES):
        whole_SH = whole_sequence(model, history, has_embedding)
        states_SH = model.llm(inputs_embeds=whole_SH[None], use_cache=False).last_hidden_state[0]
        torch.testing.assert_close(packed[example], states_SH[-1], rtol=1e-10, atol=1e-12)
        # The item's last token: the end of its title.
        end = states_SH[-1 - len(model.response_J)]
        torch.testing.assert_close(at_item[example], end, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("has_embedding", FORMS)
def test_gradients_do_not_depend_on_packing_nor_on_checkpointing(has_embedding: bool) -> None:
    def gradients(**changes: object) -> dict[str, Tensor]:
        model = titled_model(has_embedding, **changes).train()
        output = model(model.packer(HISTORIES))
        (output.logits_BK.square().sum() + output.knowledge_BH.square().sum()).backward()
        assert all(each.grad is not None for each in model.trainable_parameters())
        return {name: cast(Tensor, p.grad) for name, p in model.named_parameters() if p.requires_grad}

    expected = gradients(shared_prefix=False)
    assert any("lora_" in name for name in expected)
    assert ("item_projection.weight" in expected) == has_embedding
    for changes in ({}, {"gradient_checkpointing": True}, {"gradient_checkpointing": True, "shared_prefix": False}):
        found = gradients(**changes)
        assert found.keys() == expected.keys()
        for name, gradient in expected.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-8, atol=1e-10, msg=name)


@torch.no_grad()
def test_titles_and_embeddings_count_where_they_are_read() -> None:
    for has_embedding in FORMS:
        model = titled_model(has_embedding)
        before = model(model.packer(HISTORIES)).knowledge_BH
        model.items_ID = model.items_ID.roll(1, dims=0)
        moved = model(model.packer(HISTORIES)).knowledge_BH
        assert (not torch.equal(before, moved)) == has_embedding
        other = model.packer.of_items(np.roll(np.arange(1, NUM_ITEMS + 1), 1))
        assert (model(other(HISTORIES)).knowledge_BH - moved).abs().max() > 1e-4


def test_a_model_of_titles_alone_has_no_projection() -> None:
    model = make_model(items=items_of(False))
    assert set(model.trained_layers()) == {"group_head"}
    assert not any("item_projection" in name for name, _ in model.named_parameters())
    assert set(make_model(items=items_of(True)).trained_layers()) == {"item_projection", "group_head"}


@torch.no_grad()
def test_embeddings_alone_enter_to_the_bit_as_projection_and_response() -> None:
    model = make_model()
    assert model.item_projection is not None
    packed = model.packer(HISTORIES)
    numbers_RT = packed.tokens_RT
    response_JH = model.llm.get_input_embeddings()(model.response_J)
    items_RTH = model.item_projection(model.items_ID[numbers_RT.clamp(min=0)])
    expected_RTH = torch.where((numbers_RT < 0)[..., None], response_JH[(-1 - numbers_RT).clamp(min=0)], items_RTH)
    assert torch.equal(model._embed(numbers_RT), expected_RTH)
