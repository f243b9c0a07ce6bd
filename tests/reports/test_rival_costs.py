"""What LlamaRec, P5 and POD cost: counted by hand on small numbers, and as torch counts it."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from support.interactions import make_interactions
from tslrec.config import Config
from tslrec.data.interactions import Interactions
from tslrec.llm.encoder_decoder.shape import NUM_WHOLE_WORDS, EncoderDecoderShape
from tslrec.llm.shape import Shape
from tslrec.pipeline.composition import compose_overrides
from tslrec.reports.costs import decoder_beams, encoder_decoder, llamarec, p5, pod
from tslrec.reports.costs.encoder_decoder import Texts
from tslrec.reports.costs.memory import CONTEXT_BYTES, GIB, WORKSPACE_BYTES
from tslrec.reports.costs.rival_forecast import PLANS, counted_for, rival_plans_of
from tslrec.reports.costs.rival_sizes import ASSUMED_TITLE, llamarec_sizes, p5_sizes, pod_sizes, title_tokens
from tslrec.reports.costs.rival_view import print_rivals
from tslrec.reports.costs.rivals_on_llm import llamarec_plan, p5_plan
from tslrec.reports.costs.rivals_on_t5 import pod_plan
from tslrec.reports.costs.sampling import SAMPLED, sampled_tokens
from tslrec.stages.pod.templates import SEQUENTIAL, TOP_N
from tslrec.system.consoles import plain_console
from tslrec.system.errors import UserError

SMALL = EncoderDecoderShape(d_model=4, d_kv=2, d_ff=8, num_layers=1, num_decoder_layers=1, num_heads=2)
LLAMA = Shape(4, 8, 1, 2, 2, 2, 10)


def ints(*numbers: int) -> NDArray[np.int64]:
    return np.array(numbers, dtype=np.int64)


def test_weights_of_an_encoder_decoder_by_hand() -> None:
    assert encoder_decoder.encoder_parameters(SMALL) == 4 * 16 + 2 * 32
    assert encoder_decoder.decoder_parameters(SMALL) == 6 * 16 + 2 * 32
    assert encoder_decoder.cross_parameters(SMALL) == 2 * 16
    tables = 10 + NUM_WHOLE_WORDS + 3
    assert encoder_decoder.num_parameters(SMALL, 10, 3) == 128 + 160 + 32 + (7 + tables) * 4 + 2 * 32 * 2


def test_t5_small_has_its_published_size() -> None:
    own = NUM_WHOLE_WORDS * 512
    assert encoder_decoder.num_parameters(EncoderDecoderShape(), 32_128) - own == 60_506_624


def test_operations_of_an_encoder_decoder_by_hand() -> None:
    # 5 source tokens through 160 weights; 3² + 2² pairs of source tokens.
    sources = 2 * 160 * 5 + 4 * 4 * 13
    assert encoder_decoder.source_flops(SMALL, ints(3, 2)) == sources
    # 3 target tokens through 160 weights and 10 logits of width 4; they see 3 + 1 targets and 6 + 2 source tokens.
    texts = Texts(ints(3, 2), ints(2, 1))
    assert encoder_decoder.forward_flops(SMALL, 10, texts) == sources + 2 * 200 * 3 + 4 * 4 * 12


def test_operations_of_beams_by_hand() -> None:
    # One token, then two beams of two further ones: 5 tokens, which see 3 sources each, and 1 + 2 × 2 + 2 × 3 targets.
    source, search = 2 * 160 * 3 + 4 * 4 * 9, 2 * 200 * 5 + 4 * 4 * (15 + 11)
    assert encoder_decoder.beam_flops(SMALL, 10, ints(3), 3, 2, searches=1) == source + search
    assert encoder_decoder.beam_flops(SMALL, 10, ints(3), 3, 2, searches=2) == source + 2 * search
    # Without an encoder: 3 tokens of the prompt and two beams of two tokens are read, and 5 times there are logits.
    flops, tokens = decoder_beams.beam_flops(LLAMA, 10, ints(3), 3, 2, searches=1)
    assert tokens == 7
    assert flops == 2 * 160 * 7 + 4 * 4 * (6 + 4 * 3 + 6) + 2 * 10 * 4 * 5


def test_operations_are_those_that_torch_counts() -> None:
    from transformers import T5Config, T5ForConditionalGeneration

    shape = EncoderDecoderShape(d_model=32, d_kv=8, d_ff=64, num_layers=2, num_decoder_layers=3, num_heads=4)
    names = ("d_model", "d_kv", "d_ff", "num_layers", "num_decoder_layers", "num_heads")
    sizes: dict[str, Any] = {name: getattr(shape, name) for name in names}
    start: dict[str, Any] = {"decoder_start_token_id": 0, "pad_token_id": 0}
    config = T5Config(vocab_size=50, **start, **sizes)
    config._attn_implementation = "eager"
    model = T5ForConditionalGeneration(config)
    sources, targets = torch.ones(3, 20, dtype=torch.int64), torch.ones(3, 7, dtype=torch.int64)
    with FlopCounterMode(display=False) as counter:
        loss = model(input_ids=sources, labels=targets).loss
        forward = counter.get_total_flops()
        loss.backward()
    texts = Texts(ints(20, 20, 20), ints(7, 7, 7))
    # The naive attention computes what is masked as well.
    masked = 4 * 3 * shape.inner * 3 * (7 * 6 / 2)
    expected = encoder_decoder.forward_flops(shape, 50, texts) + masked
    assert forward == pytest.approx(expected, rel=0.01)
    assert counter.get_total_flops() == pytest.approx(encoder_decoder.TRAINING_PASSES * expected, rel=0.02)


def test_memory_of_a_step_by_hand() -> None:
    # Per token: blocks 2 × 4 numbers and a mask of 4, attention 4 × 4 numbers, feed-forward 8 numbers and their mask.
    block, probability = 2 * 16 + 4, 2 * (8 + 1)
    attention, feed_forward = block + 64, block + 8 * 5
    encoder = 3 * (attention + feed_forward) + 9 * probability
    decoder = 2 * (attention + feed_forward) + 2 * (block + 32) + 3 * 32 + (4 + 6) * probability
    kept = encoder_decoder.kept_bytes(SMALL, 10, Texts(ints(3), ints(2)))
    assert kept == encoder + decoder + 2 * 2 * 10 * 4
    others = 16 * 1000 + WORKSPACE_BYTES + CONTEXT_BYTES
    assert encoder_decoder.memory_gib(SMALL, 10, 1000, Texts(ints(3), ints(2))) == (kept + others) / GIB


def test_padding_makes_texts_as_long_as_the_longest_of_their_batch() -> None:
    texts = Texts(ints(3, 9, 5, 5), ints(2, 2, 4, 2)).padded(4, seed=0)
    assert (texts.sources_B.tolist(), texts.targets_B.tolist()) == ([9] * 4, [4] * 4)


def test_llamarecs_examples_by_hand() -> None:
    sizes = llamarec.LlamaRecSizes(title_tokens=10.0)
    # A user with three training items gives two prompts, of one and two items beside twenty candidates.
    assert llamarec.training_lengths(ints(1, 3), sizes).tolist() == [21 * 15, 22 * 15]
    assert llamarec.training_lengths(ints(25), sizes).tolist() == [(20 + n) * 15 for n in (*range(1, 20), *[20] * 5)]
    assert llamarec.tested_lengths(ints(1, 3, 25, 7), sizes, 0.5).tolist() == [22 * 15, 28 * 15]
    # The longest prompt is cut: 1,536 tokens with 60 of the instruction, 8 before the answer, letter and end.
    longest = llamarec.LlamaRecSizes(title_tokens=32.0)
    assert llamarec.training_lengths(ints(25), longest).max() == 1536 - 70
    assert llamarec.head_flops(LLAMA, 3, training=True) == 3 * 2 * (2 * 2 * 10 * 4)


def test_p5s_texts_by_hand() -> None:
    sizes = p5.P5Sizes(code_tokens=3, user_tokens=3)
    sequential, straightforward = p5.training_texts(ints(1, 3), sizes)
    # 16 words, the data set, 3 of the user and the end; 6 tokens an item.
    assert sequential.sources_B.tolist() == [21 + 6] * 3 + [21 + 12] * 3
    assert straightforward.sources_B.tolist() == [21] * 6
    assert set(sequential.targets_B.tolist()) == {7}
    assert p5.tested_texts(ints(1, 30), sizes).sources_B.tolist() == [21 + 12, 21 + 120]
    assert [p5.code_length(items, 20, 500) for items in (30, 500, 501, 10_000, 12_101)] == [2, 2, 2, 2, 3]


def test_pods_texts_by_hand() -> None:
    sizes = pod.PODSizes(user_number_tokens=2.0, item_number_tokens=1.5, batch_size=4)
    assert pod.number_tokens(120) == (99 * 1 + 21 * 2) / 120
    assert pod.epoch_steps(np.full(22_363, 5), 64) == 698
    assert pod.epoch_steps(ints(1, 1, 1, 1, 2), 4) == 1
    sequential, choices = pod.training_texts(np.full(9, 2), sizes, seed=0)
    # Two batches of either task; a training part of two items has one segment, which shows one item.
    words = {task: pod.template_words(task) for task in (SEQUENTIAL, TOP_N)}
    assert sequential.sources_B.tolist() == [round(3 + words[SEQUENTIAL] + 4 + 3.5 + 1)] * 8
    assert choices.sources_B.tolist() == [round(3 + words[TOP_N] + 4 + 350 + 1)] * 8
    assert set(sequential.targets_B.tolist()) == {3}
    assert pod.tested_texts(ints(1, 30), sizes).sources_B.tolist() == [3 + 4 + 7 + 1, 3 + 4 + 70 + 1]


def test_many_examples_are_sampled_and_scaled() -> None:
    lengths = np.random.default_rng(0).integers(5, 60, SAMPLED + 9000)
    some = sampled_tokens(lengths, (10, 2), 16, 0, shared=True)
    assert (some.examples, some.steps) == (len(lengths), -(-len(lengths) // 16))
    whole = lengths.sum() + len(lengths) * 2 + 10 * some.steps
    assert some.needed == pytest.approx(whole, rel=0.005)


def test_titles_are_counted_by_their_characters() -> None:
    assert title_tokens(("", "x" * 11, "", "y" * 500), 32).mean == (3 + 32) / 2
    assert title_tokens(("x" * 11, "y" * 500), 20).mean == (3 + 20) / 2
    assert title_tokens(None, 32) == title_tokens(("", ""), 32) == (ASSUMED_TITLE, "assumed: the data have no titles")
    assert title_tokens(None, 8).mean == 8


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plans of a test see no titles that a person keeps in the cache."""
    monkeypatch.setenv("TSLREC_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def market() -> Interactions:
    draw = np.random.default_rng(0)
    return make_interactions([draw.integers(1, 50, 4 + user % 9).tolist() for user in range(60)])


def config_of(*overrides: str) -> Config:
    return compose_overrides(["data=beauty", "model=sasrec", "method=base", "preset=tuned", *overrides])


@pytest.mark.parametrize("llm", ["llama2_7b", "llama2_13b"])
def test_operations_of_a_plan_by_hand(llm: str, market: Interactions) -> None:
    config = config_of(f"llm={llm}", "trainer=gpu")
    lengths = market.train_lengths
    sizes = llamarec.LlamaRecSizes(title_tokens=10.0)
    plan = llamarec_plan(config, lengths, sizes, seed=0)
    assert plan.epoch.examples == (lengths - 1).sum()
    assert plan.trainable == {"llama2_7b": 4_194_304, "llama2_13b": 6_553_600}[llm]
    # Forward and backward pass through the frozen weights; attention, adapter and head are a few per cent of it.
    linear = 2 * 2 * plan.parameters * plan.epoch.tokens
    assert linear < plan.epoch.flops * 1.02 < 1.06 * linear
    assert plan.inference.examples == market.num_users
    assert plan.memory_gib > plan.parameters * 2 / GIB
    texts = p5_plan(config, lengths, p5.P5Sizes(code_tokens=3, user_tokens=3), seed=0)
    assert texts.epoch.examples == 2 * 3 * (lengths - 1).sum()


def test_pods_plan_does_not_depend_on_the_configured_language_model(market: Interactions) -> None:
    sizes = pod.PODSizes(2.0, 1.5, batch_size=8)
    plans = [
        pod_plan(config_of(f"llm={llm}", "trainer=gpu"), market.train_lengths, sizes, seed=0)
        for llm in ("llama2_7b", "smollm2_135m")
    ]
    assert plans[0] == plans[1]
    assert plans[0].epoch.examples == 8 * 2 * (60 // 8)
    bigger = pod_plan(config_of("trainer=gpu"), market.train_lengths, replace(sizes, candidates=200), seed=0)
    assert bigger.epoch.flops > plans[0].epoch.flops
    assert bigger.memory_gib > plans[0].memory_gib


def test_a_plan_prints_work_memory_and_what_it_assumes(market: Interactions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tslrec.data.ingest.ingest", lambda *_: market)
    config = config_of("llm=llama2_13b", "trainer=gpu", "trainer.device=l40s")
    printed = io.StringIO()
    print_rivals(rival_plans_of(config, list(PLANS), 0), config, plain_console(width=100, file=printed))
    text = printed.getvalue()
    for words in ("LlamaRec, ranker: an epoch", "P5, decoder-only on llama2_13b", "POD, T5 on T5-small", "taken for"):
        assert words in text
    assert all(len(line) <= 100 for line in text.splitlines())
    assert "do not fit" in text


def test_titles_are_those_of_the_file_that_the_data_name(market: Interactions, tmp_path: Path) -> None:
    path = tmp_path / "titles.csv"
    first = market.ids.items[1]
    path.write_text(f"item_id,title\n{first},{'x' * 200}\n")
    sizes = llamarec_sizes(config_of(f"data.titles={path}"), market)
    neutral = [len(f"item {raw_id}") for raw_id in market.ids.items[2:]]
    expected = (32 + sum(-(-each // 5) for each in neutral)) / market.num_items
    assert sizes.title_tokens == pytest.approx(expected)
    assert sizes.titles.startswith("estimated")
    assert "assumed" in llamarec_sizes(config_of("data.titles=null"), market).titles
    path.write_text("item_id,title\nelsewhere,a title\n")
    with pytest.raises(UserError, match="has no row of any of the"):
        llamarec_sizes(config_of(f"data.titles={path}"), market)


def test_the_configured_numbers_are_counted(market: Interactions) -> None:
    """One setting after the other changes what it should."""
    lengths = market.train_lengths
    sizes = llamarec_sizes(config_of("llamarec.share=.5", "llamarec.batch_size=3", "llamarec.lora.rank=2"), market)
    assert (sizes.batch_size, sizes.lora.rank) == (3, 2)
    assert len(llamarec.training_lengths(lengths, sizes)) == round((lengths - 1).sum() / 2)
    few = p5_sizes(config_of("p5.share=.25", "p5.tasks=[sequential]", "p5.prompts=null", "p5.max_tokens=30"), market)
    (texts,) = p5.training_texts(lengths, few)
    assert len(texts) == 10 * round((lengths - 1).sum() / 4)
    assert texts.sources_B.max() == 30
    assert p5_sizes(config_of("item_index.leaf_size=20", "item_index.num_clusters=2"), market).code_tokens == 3
    assert p5_sizes(config_of("item_index.kind=random"), market).code_tokens == 2
    steps = pod_sizes(config_of("pod.steps_per_epoch=4", "pod.batch_size=8", "pod.num_beams=11"), market)
    assert sum(map(len, pod.training_texts(lengths, steps, seed=0))) == 4 * 8
    assert (steps.beams, steps.candidates) == (11, market.num_items)


def test_the_configured_t5_is_counted(market: Interactions, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("tslrec.data.ingest.ingest", lambda *_: market)
    small, laptop = (rival_plans_of(config_of(f"t5={t5}"), ["p5_t5", "pod"], 0) for t5 in ("small", "laptop"))
    assert [plan.model for plan in laptop] == ["T5-laptop"] * 2
    assert all(ours.epoch.flops < theirs.epoch.flops / 10 for ours, theirs in zip(laptop, small, strict=True))
    assert 1e6 < laptop[1].parameters < 2e6
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "t5", "vocab_size": 32_128}))
    files = rival_plans_of(config_of(f"t5.path={tmp_path}"), ["pod"], 0)[0]
    prompts = 9
    assert files.parameters == 60_506_624 + (NUM_WHOLE_WORDS + prompts) * 512
    assert "POD has a vocabulary of 32,128 tokens" in files.assumptions


def test_data_without_training_examples_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tslrec.data.ingest.ingest", lambda *_: make_interactions([[1, 2, 3], [2, 1, 3]]))
    with pytest.raises(UserError, match="no user has two training items"):
        rival_plans_of(config_of("llm=llama2_7b"), list(PLANS), 0)


def test_methods_are_told_by_their_stages() -> None:
    config = config_of()
    assert counted_for(config) == ()
    config.method.stages = ["item_index", "p5"]
    assert counted_for(config) == ("p5", "p5_t5")
