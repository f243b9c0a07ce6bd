"""Lists and scores equal those of the public code of P5 and of POD, on that one's weights and users."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from support.rival_files import FILES, Golden, model_of, needs_files, read, unpadded
from tslrec.llm.encoder_decoder.beams import BeamSearch, generate_items
from tslrec.llm.encoder_decoder.candidates import AnyToken
from tslrec.llm.encoder_decoder.exhaustive import score_all_items
from tslrec.llm.encoder_decoder.packing import Packer, Sources
from tslrec.llm.encoder_decoder.shape import END
from tslrec.llm.encoder_decoder.trie import Trie, build_trie

pytestmark = needs_files

ATOL = 2e-5


def p5_sources(golden: Golden, words: NDArray[np.int64]) -> Sources:
    mask = golden["test_attention_mask"]
    return Packer().sources(unpadded(golden["test_input_ids"], mask), unpadded(words, mask))


def words_of_one_user(golden: Golden) -> NDArray[np.int64]:
    """In a batch, P5's public code gives `</s>` the last word's number; a user alone has 0 there."""
    words: NDArray[np.int64] = np.where(golden["test_input_ids"] == END, 0, golden["test_whole_word_ids"])
    return words


def trie_of(golden: Golden) -> tuple[Trie, NDArray[np.int64]]:
    """The trie, and the file's item ids by our item number."""
    codes = [tuple(row[row != 0].tolist()) for row in golden["candidate_tokens"]]
    return build_trie([(), *codes]), np.concatenate([[0], golden["candidates"]])


@pytest.mark.parametrize("path", FILES["P5"], ids=lambda path: path.parent.name)
@pytest.mark.parametrize("kind", ["beam", "masked_beam", "batch_beam"])
def test_p5_lists_equal_the_reference(path: Path, kind: str, device: torch.device) -> None:
    golden = read(path)
    trie, ids = trie_of(golden)
    words = golden["test_whole_word_ids"] if kind == "batch_beam" else words_of_one_user(golden)
    seen = None
    if kind == "masked_beam":
        number = {item: i for i, item in enumerate(ids.tolist())}
        histories = [row[: length - 1].tolist() for row, length in zip(golden["seq"], golden["seq_len"], strict=True)]
        seen = trie.seen([np.array([number[item] for item in history]) for history in histories]).to(device)
    items_UK, scores_UK = generate_items(
        model_of(golden, device),
        p5_sources(golden, words).to(device),
        trie.to(device),
        seen,
        num_beams=golden["meta"]["num_beams"],
    )
    np.testing.assert_array_equal(ids[items_UK.cpu()], golden[f"{kind}_items"])
    np.testing.assert_allclose(scores_UK.cpu(), golden[f"{kind}_scores"], atol=ATOL)


@pytest.mark.parametrize("path", FILES["P5"], ids=lambda path: path.parent.name)
def test_all_items_score_as_in_the_reference(path: Path, device: torch.device) -> None:
    golden = read(path)
    trie, ids = trie_of(golden)
    sources = p5_sources(golden, words_of_one_user(golden)).to(device)
    scores_UI = score_all_items(model_of(golden, device), sources, trie.to(device))[:, 1:].cpu().numpy()
    np.testing.assert_allclose(scores_UI, golden["exact_score"], atol=ATOL)
    np.testing.assert_allclose(scores_UI * golden["item_tokens"], golden["item_logprob"], atol=1e-4)
    column_U: NDArray[np.int64] = np.asarray(np.searchsorted(ids[1:], golden["target"]), dtype=np.int64)
    target_U1 = np.take_along_axis(scores_UI, column_U[:, None], axis=1)
    np.testing.assert_array_equal((scores_UI > target_U1).sum(axis=1), golden["exact_rank"])


@pytest.mark.parametrize("path", FILES["POD"], ids=lambda path: path.parent.name)
@pytest.mark.parametrize(("key", "released"), [("beams", False), ("batch_beams", True)])
def test_pod_texts_equal_the_reference(path: Path, key: str, released: bool, device: torch.device) -> None:
    golden = read(path)
    meta, mask = golden["meta"], golden["test_attention_mask"]
    sources = Packer(num_prompts=meta["prompts_per_task"], released=released).sources(
        unpadded(golden["test_input_ids"], mask),
        unpadded(golden["test_whole_word_ids"], mask),
        golden["test_task"].tolist(),
    )
    search = BeamSearch(meta["num_beams"], max_tokens=meta["max_length"] - 1, early_stopping=True)
    beams = search(model_of(golden, device), sources.to(device), AnyToken())
    expected_UKT = golden[key][:, :, 1:]
    returned = expected_UKT.shape[1]
    found_UKT = beams.tokens_UKT[:, :returned].cpu().numpy()
    np.testing.assert_array_equal(found_UKT[..., : expected_UKT.shape[2]], expected_UKT)
    assert not found_UKT[..., expected_UKT.shape[2] :].any()
    if not released:
        np.testing.assert_allclose(beams.scores_UK[:, :returned].cpu(), golden["beam_scores"], atol=ATOL)
