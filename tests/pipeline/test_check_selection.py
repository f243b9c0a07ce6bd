"""A validation that cannot tell one model from another is refused or warned of before any training."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from support.in_process import RUN, train_here
from tslrec.config import Config
from tslrec.data.held_out import HeldOut, held_out
from tslrec.data.interactions import TEST, VALIDATION, IdMap, Interactions
from tslrec.pipeline.check_catalogue import check_catalogue, check_tables
from tslrec.pipeline.check_selection import check_selection
from tslrec.pipeline.composition import compose_overrides
from tslrec.settings.choices import MethodConfig
from tslrec.settings.data import DataConfig
from tslrec.settings.language_models import LLMConfig
from tslrec.settings.trainer import TrainerConfig
from tslrec.settings.training import TrainingConfig
from tslrec.system.errors import UserError

BASE = Config(
    method=MethodConfig("base", ["backbone"]),
    data=DataConfig("log", "Log", {}),
    model={"name": "s", "_target_": "tslrec.models.backbones.sasrec.SASRec", "hidden_size": 8},
    fusion={"name": "gate", "_target_": "tslrec.models.fusions.gate.GatedFusion"},
    llm=LLMConfig("tiny", random={}),
    trainer=TrainerConfig("cpu"),
)


def made(sequences: list[list[int]], num_items: int = 60) -> Interactions:
    ids = IdMap(tuple(f"u{u}" for u in range(len(sequences))), ("", *(f"i{i}" for i in range(1, num_items + 1))))
    offsets = np.cumsum([0, *map(len, sequences)])
    return Interactions("log", np.concatenate(sequences).astype(np.int32), offsets, ids)


def repeating(users: int, *, fresh: int) -> Interactions:
    """Users whose held-out items are in their history, and `fresh` users whose are not."""
    seen = [[u % 20 + 1, u % 20 + 2, u % 20 + 1, u % 20 + 2] for u in range(users - fresh)]
    return made([*seen, *([u % 20 + 1, 30 + u % 9, 40 + u % 9] for u in range(fresh))])


def unmasked(config: Config) -> Config:
    return replace(config, training=replace(config.training, selection="unmasked"))


def warnings_of(config: Config, interactions: Interactions, caplog: pytest.LogCaptureFixture) -> str:
    caplog.clear()
    with caplog.at_level(logging.WARNING, "tslrec"):
        logging.getLogger("tslrec").propagate = True
        check_selection(config, interactions)
    assert all(len(record.getMessage()) <= 300 for record in caplog.records)
    return caplog.text


def test_targets_in_the_history_are_counted_like_sets() -> None:
    generator = np.random.default_rng(0)
    sequences = [generator.integers(1, 9, length).tolist() for length in generator.integers(3, 12, 5000)]
    data, users = made(sequences), np.arange(5000)
    for position in (TEST, VALIDATION):
        expected = sum(each[-position] in each[:-position] for each in sequences)
        assert held_out(data, users, position) == HeldOut(5000, expected, 8)


def test_a_validation_that_is_zero_for_every_model_is_refused() -> None:
    with pytest.raises(UserError, match=r"100 of 100 validation items \(100\.0%\).*training\.selection=unmasked"):
        check_selection(BASE, repeating(100, fresh=0))


def test_nearly_all_targets_in_the_history_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    data = repeating(1000, fresh=10)
    assert "set training.selection=unmasked" in warnings_of(BASE, data, caplog)
    text = warnings_of(unmasked(BASE), data, caplog)
    assert "training.selection" not in text
    assert "not masked" in text
    assert not warnings_of(BASE, repeating(1000, fresh=500), caplog)


def test_few_users_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    few = replace(BASE, training=TrainingConfig(validation_users=20))
    for config in (few, unmasked(few)):
        assert "20 users, too few" in warnings_of(config, repeating(300, fresh=300), caplog)


def test_a_run_is_warned_once(tmp_path: Path) -> None:
    """Its stage 1 has the same configuration, which is not checked again."""
    ended = train_here(*RUN, "method=base", "training.validation_users=10", folder=tmp_path)
    assert ended.code == 0, ended.err
    assert (ended.out + ended.err).count("too few to tell one model from another") == 1


def test_equal_targets_are_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    data = made([[u % 20 + 1, 50, 30 + u % 9] for u in range(100)])
    assert "all 100 users have the same validation item" in warnings_of(BASE, data, caplog)


def test_nobody_to_evaluate_is_refused_unless_nothing_is_trained() -> None:
    data = made([[1, 2], [3], [4, 5]])
    with pytest.raises(UserError, match=r"no user has 3 interactions"):
        check_selection(BASE, data)
    check_selection(replace(BASE, method=MethodConfig("statistics", [])), data)


def test_numbers_larger_than_the_catalogue_are_refused() -> None:
    ci = replace(BASE, method=MethodConfig("ci", ["backbone", "preferences"]))
    with pytest.raises(UserError, match=r"preferences\.num_clusters=64: log has only 60 items"):
        check_catalogue(ci, 60)
    check_catalogue(BASE, 60)
    check_catalogue(ci, 64)
    with pytest.raises(UserError, match=r"metrics: HR@61 .*60"):
        check_catalogue(replace(BASE, metrics=["HR@10", "HR@61"]), 60)


def test_tables_larger_than_the_memory_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tslrec.pipeline.check_models.memory_bytes", lambda: 2**30)
    check_tables(BASE, 1_000_000, 10)
    with pytest.raises(UserError, match=r"model\.hidden_size=8 with 9,000,000 items and 10 users: .*1\.\d GiB"):
        check_tables(BASE, 9_000_000, 10)
    per_user = {**BASE.model, "_target_": "tslrec.models.backbones.caser.Caser", "use_user_embedding": True}
    with pytest.raises(UserError, match=r"9,000,000 users"):
        check_tables(replace(BASE, model=per_user), 10, 9_000_000)


def test_a_single_item_has_nothing_to_be_compared_with() -> None:
    pairwise = compose_overrides(["method=base", "model=fpmc", "model.bpr=true"])
    with pytest.raises(UserError, match=r"model\.bpr=true: .* has only one item"):
        check_catalogue(pairwise, 1)
    check_catalogue(pairwise, 2)
