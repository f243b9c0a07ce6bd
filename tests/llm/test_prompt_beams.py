"""Lists of a decoder-only model are those of transformers, and score items as the loss of the training does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from support.continued_texts import END, KNOWN, Market, random_market
from tslrec.llm.encoder_decoder.trie import build_trie
from tslrec.llm.prompt_beams import PromptSteps, generate_after, read_prompts
from tslrec.llm.prompt_packing import PromptPacker


def their_list(market: Market, user: int, num_beams: int, *, masked: bool) -> list[tuple[tuple[int, ...], float]]:
    """A user's list by transformers: the codes, and their scores."""
    prompt = torch.from_numpy(market.prompts[user])[None]
    hidden = set(market.seen[user].tolist()) if masked else set()
    open_codes = [code for item, code in enumerate(market.codes) if item and item not in hidden]

    def children(_: int, text: torch.Tensor) -> list[int]:
        before = tuple(text.tolist()[prompt.shape[1] :])
        after = {code[len(before)] for code in open_codes if code[: len(before)] == before and len(code) > len(before)}
        return sorted(after) or [END]

    found: Any = market.theirs.generate(
        prompt,
        attention_mask=torch.ones_like(prompt),
        num_beams=num_beams,
        num_return_sequences=num_beams,
        max_new_tokens=max(map(len, market.codes)),
        prefix_allowed_tokens_fn=children,
        do_sample=False,
        output_scores=True,
        return_dict_in_generate=True,
    )
    rows = zip(found.sequences[:, prompt.shape[1] :].tolist(), found.sequences_scores.tolist(), strict=True)
    # Scores below this are of beams that were filled up.
    return [(tuple(row[: row.index(END) + 1]), score) for row, score in rows if score > -1e6]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("kind", "tied"), [("llama", False), ("qwen3", True)])
@pytest.mark.parametrize("masked", [False, True])
def test_lists_are_those_of_transformers(seed: int, kind: str, tied: bool, masked: bool) -> None:
    market = random_market(seed, kind=kind, tied=tied)
    trie = build_trie(market.codes)
    for num_beams in (2, 5):
        prompts = read_prompts(market.ours, *market.padded())
        seen = trie.seen(market.seen) if masked else None
        items_UK, scores_UK = generate_after(market.ours, prompts, trie, seen, num_beams=num_beams)
        for user in range(len(market.prompts)):
            expected = their_list(market, user, num_beams, masked=masked)
            found = [market.codes[item] for item in items_UK[user].tolist() if item]
            assert found == [code for code, _ in expected]
            np.testing.assert_allclose(scores_UK[user, : len(found)], [score for _, score in expected], atol=1e-5)


@pytest.mark.parametrize("packs", [True, False])
@pytest.mark.parametrize("tied", [True, False])
def test_items_score_as_the_loss_has_them(packs: bool, tied: bool, device: torch.device) -> None:
    market = random_market(4, tied=tied, packs=packs, moved=True)
    model, trie = market.ours.to(device), build_trie(market.codes).to(device)
    prompts = read_prompts(model, *market.padded(device))
    items_UI, scores_UI = generate_after(model, prompts, trie, None, num_beams=trie.num_items)
    packer = PromptPacker(packs=packs)
    longest = max(map(len, market.codes))
    for user, prompt in enumerate(market.prompts):
        assert sorted(items_UI[user].tolist()) == list(range(1, trie.num_items + 1))
        # All answers to a user share a batch; rows of others do not matter.
        answered = [np.concatenate([prompt, code[:-1]]) for code in market.codes[1:]]
        labels_BT = torch.full((len(answered), longest), -100)
        for row, code in zip(labels_BT, market.codes[1:], strict=True):
            row[-len(code) :] = torch.tensor(code)
        with torch.no_grad():
            states = model.end_states(packer(answered).to(device), count=longest)
            each = [
                float(model.loss(state[None], row[None].to(device)))
                for state, row in zip(states, labels_BT, strict=True)
            ]
            whole = float(model.loss(states, labels_BT.to(device)))
        assert whole == pytest.approx(sum(each), rel=1e-5)
        lengths = np.array([len(code) for code in market.codes[1:]])
        expected = -np.array(each) / lengths
        np.testing.assert_allclose(scores_UI[user].cpu(), expected[items_UI[user].cpu() - 1], atol=2e-5)


@pytest.mark.parametrize("packs", [True, False])
def test_the_loss_is_that_of_transformers(packs: bool) -> None:
    market = random_market(1, packs=packs)
    texts = [
        np.concatenate([prompt, code[:-1]]) for prompt, code in zip(market.prompts, market.codes[1:], strict=False)
    ]
    labels_BT = torch.full((len(texts), max(map(len, market.codes))), -100)
    expected = 0.0
    for row, prompt, code in zip(labels_BT, market.prompts, market.codes[1:], strict=False):
        row[-len(code) :] = torch.tensor(code)
        ids = torch.tensor([[*prompt.tolist(), *code]])
        labels = ids.clone()
        labels[:, : len(prompt)] = -100
        expected += float(market.theirs(ids, labels=labels).loss.detach()) * len(code)
    loss = market.ours.loss(
        market.ours.end_states(PromptPacker(packs=packs)(texts), count=labels_BT.shape[1]), labels_BT
    )
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    loss.backward()
    assert market.ours.new_tokens is not None
    assert market.ours.new_head is not None
    for rows in (market.ours.new_tokens, market.ours.new_head):
        assert rows.weight.grad is not None
        assert float(rows.weight.grad.abs().sum()) > 0
    trained = {name for name, each in market.ours.named_parameters() if each.requires_grad}
    assert all("lora_" in name or name.startswith(("new_tokens", "new_head")) for name in trained)
    assert any("lora_embedding_A" in name for name in trained)


def test_a_search_leaves_what_was_read_as_it_was_and_gives_the_same_again() -> None:
    market = random_market(2)
    trie = build_trie(market.codes)
    prompts = read_prompts(market.ours, *market.padded())
    before = [(keys.clone(), values.clone()) for keys, values in prompts.keys_and_values]
    first = generate_after(market.ours, prompts, trie, trie.seen(market.seen), num_beams=6)
    again = generate_after(market.ours, prompts, trie, trie.seen(market.seen), num_beams=6)
    assert all(torch.equal(one, other) for one, other in zip(first, again, strict=True))
    for pair, same in zip(prompts.keys_and_values, before, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(pair, same, strict=True))


def test_the_prompt_is_run_once_for_all_beams(monkeypatch: pytest.MonkeyPatch) -> None:
    market = random_market(3)
    read: list[int] = []
    run = type(market.ours.llm).forward

    def counted(self: Any, *arguments: Any, **settings: Any) -> Any:
        read.append(settings["inputs_embeds"].shape[:2].numel())
        return run(self, *arguments, **settings)

    monkeypatch.setattr(type(market.ours.llm), "forward", counted)
    tokens_US, lengths_U = market.padded()
    prompts = read_prompts(market.ours, tokens_US, lengths_U)
    steps = PromptSteps(market.ours, prompts)
    assert steps.logits(torch.zeros(5, 1, dtype=torch.long)).shape == (5, 1, KNOWN + 4)
    steps.reorder(torch.zeros(5, 3, dtype=torch.long))
    assert steps.logits(torch.full((5, 3), 2)).shape == (5, 3, KNOWN + 4)
    assert read == [tokens_US.numel(), 15]
