"""A plan of reading titles counts what the stage then reads."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tslrec.cli.main import main
from tslrec.config import Config
from tslrec.data.ingest import ingest
from tslrec.data.interactions import Interactions
from tslrec.llm.shape import shape_of
from tslrec.llm.tiny import byte_tokenizer
from tslrec.llm.title_states import tokens_before
from tslrec.pipeline.composition import compose_overrides
from tslrec.reports.costs.titles import titles_plan
from tslrec.system.errors import UserError

GIVEN = ["method=text", "llm=tiny", "data.reader.num_users=60", "data.reader.num_items=40"]
GIVEN += ["data.reader.num_categories=4", "item_text.batch_size=10", "model.hidden_size=16"]


def config_of(*overrides: str) -> Config:
    return compose_overrides([*GIVEN, *overrides])


def market(config: Config) -> Interactions:
    return ingest(config.data, Path(config.cache))


def test_the_planned_tokens_are_those_of_the_titles_and_of_what_stands_before_them() -> None:
    config = config_of()
    plan, whole = (titles_plan(each, market(each), 0) for each in (config, config_of("llm.shared_prefix=false")))
    before = len(tokens_before(byte_tokenizer()))
    # "category 3, no. 0012", and a space before it, a byte each; four batches of ten.
    assert plan.reading.needed == 40 * 21 + 4 * before
    assert whole.reading.needed == 40 * (21 + before)
    assert (plan.reading.examples, plan.counted) == (40, True)
    # Two operations for each weight of the layers and token, and those of the attention.
    assert plan.reading.flops > 2 * shape_of(config.llm).linear_parameters * plan.reading.tokens
    assert whole.reading.needed > plan.reading.needed


def test_long_titles_are_cut_and_unknown_tokenizers_estimated() -> None:
    config = config_of("item_text.title_tokens=7")
    assert titles_plan(config, market(config), 0).reading.needed < 40 * 7 + 100
    estimated = titles_plan(config_of("llm=llama2_13b"), market(config), 0)
    # Twenty characters are four tokens, behind two; 10 titles a batch.
    assert (estimated.counted, estimated.reading.needed) == (False, 40 * 4 + 4 * 2)


def test_it_is_printed_and_refused_without_titles(capsys: pytest.CaptureFixture[str]) -> None:
    main(["plan", *GIVEN])
    printed = " ".join(capsys.readouterr().out.split())
    assert "Reading titles with tiny" in printed
    assert "once: 40 titles" in printed
    config = config_of()
    with pytest.raises(UserError, match=r"has no titles; name their file by data\.titles=FILE"):
        titles_plan(config, replace(market(config), titles=None), 0)
