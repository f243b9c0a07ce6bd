"""A plan counts the tokens of titles that the language model reads of an item (`sft.item_input`)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tslrec.cli.main import main
from tslrec.config import Config
from tslrec.data.ingest import ingest
from tslrec.data.interactions import Interactions
from tslrec.llm.item_input import ItemInput
from tslrec.llm.packing import Packer
from tslrec.llm.tiny import byte_tokenizer
from tslrec.llm.title_tokens import encode_titles
from tslrec.pipeline.composition import compose_overrides
from tslrec.reports.costs.forecast import plan_of
from tslrec.reports.costs.item_tokens import item_length
from tslrec.stages.sft.data import PreferenceDataModule

GIVEN = ["method=tslrec", "llm=tiny", "data.reader.num_users=60", "data.reader.num_items=40"]
GIVEN += ["data.reader.num_categories=4"]


def config_of(*overrides: str) -> Config:
    return compose_overrides([*GIVEN, *overrides])


def market(config: Config) -> Interactions:
    return ingest(config.data, Path(config.cache))


def test_tokens_are_counted_where_the_tokenizer_is_here_and_estimated_elsewhere() -> None:
    config = config_of("sft.item_input=both", "sft.title_tokens=64")
    interactions = market(config)
    # " category 3, no. 0012", a byte each.
    assert item_length(config, interactions, byte_tokenizer()) == (pytest.approx(1 + 21), "counted")
    estimated = item_length(config, interactions, None)
    assert (estimated.mean, estimated.known.split(",")[0]) == (1 + 4, "estimated")
    config.sft.item_input = "title"
    assert item_length(config, interactions, byte_tokenizer()).mean == 21
    config.sft.title_tokens = 3
    assert item_length(config, interactions, byte_tokenizer()).mean == 3
    interactions = replace(interactions, titles=None)
    assert item_length(config, interactions, byte_tokenizer()) == (3, "at most: the data have no titles")
    config.sft.item_input = "embedding"
    assert item_length(config, interactions, byte_tokenizer()).mean == 1


@pytest.mark.parametrize("form", ["title", "both"])
def test_the_planned_tokens_are_those_of_the_batches(form: str) -> None:
    config = config_of(f"sft.item_input={form}", "sft.title_tokens=12")
    interactions, plan = market(config), plan_of(config)
    assert interactions.titles is not None
    encoded = encode_titles(byte_tokenizer(), interactions.titles, 12)
    titles = [encoded[item][:12] for item in range(interactions.num_items + 1)]
    packer = Packer(plan.prompt[1], items=ItemInput(form == "both", titles))
    numbers = {"max_len": config.training.max_len, "batch_size": config.sft.batch_size, "seed": 4}
    data = PreferenceDataModule(interactions, np.zeros((60, 2), dtype=np.float32), packer, **numbers)
    batches = list(data.train_dataloader())
    needed = sum(each.examples.num_tokens for each in batches) + len(batches) * plan.prompt[0]
    assert plan.sft["shared"].tokens.needed == needed
    shown = sum(len(data.histories[user]) for user in range(60))
    assert plan.items.mean == pytest.approx({"title": 12, "both": 13}[form])
    assert needed - len(batches) * plan.prompt[0] - 60 * plan.prompt[1] == shown * plan.items.mean


def test_embeddings_are_planned_as_ever_and_titles_train_no_projection(capsys: pytest.CaptureFixture[str]) -> None:
    plain, short, title, both = (
        plan_of(config_of(*words))
        for words in ([], ["sft.title_tokens=2"], ["sft.item_input=title"], ["sft.item_input=both"])
    )
    assert plain == short
    assert both.trainable == plain.trainable
    projection = (config_of().model["hidden_size"] + 1) * plain.shape.hidden_size
    assert title.trainable == plain.trainable - projection
    assert both.sft["shared"].flops > title.sft["shared"].flops > 4 * plain.sft["shared"].flops
    # E4SRec reads embeddings alone.
    assert both.e4srec == plain.e4srec
    main(["plan", *GIVEN, "sft.item_input=both"])
    assert "Items: sft.item_input=both, 9.0 tokens each (counted)" in capsys.readouterr().out
    main(["plan", *GIVEN])
    assert "Items:" not in capsys.readouterr().out
