"""What label smoothing and soft targets do not go with is refused in one line, before anything is read."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hydra import compose, initialize_config_dir

from support.checkout import CHECKOUT
from tslrec.config import Config
from tslrec.pipeline.check import check
from tslrec.pipeline.check_catalogue import check_catalogue
from tslrec.pipeline.check_models import check_models
from tslrec.pipeline.check_values import check_values
from tslrec.pipeline.composition import register_schema, to_config
from tslrec.system.errors import UserError


def composed(*overrides: str) -> Config:
    register_schema()
    with initialize_config_dir(str(CHECKOUT / "configs"), version_base="1.3"):
        return to_config(compose("train", overrides=["method=base", "llm=tiny", *overrides]))


def taught(config: Config) -> Config:
    return replace(config, method=replace(config.method, stages=["soft_targets", "fusion"]))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["training.num_negatives=5"], "training.num_negatives=5: {} needs the softmax over all items; set it to null"),
        (["model=fpmc", "model.bpr=true"], "model=fpmc: {} needs a softmax over all items, and BPR compares two of"),
    ],
)
def test_both_need_the_softmax_over_all_items(overrides: list[str], message: str) -> None:
    for config, what in (
        (composed("training.label_smoothing=0.1", *overrides), "training.label_smoothing=0.1"),
        (taught(composed("fusion=plain", *overrides)), "the stage soft_targets"),
    ):
        with pytest.raises(UserError) as caught:
            check_models(config)
        assert str(caught.value).startswith(message.format(what))
        assert len(str(caught.value)) <= 300
    check(composed(*overrides))


def test_a_masked_backbone_smooths_labels_and_has_no_teacher() -> None:
    config = composed("model=bert4rec", "fusion=plain", "training.label_smoothing=0.1")
    check(config)
    with pytest.raises(
        UserError, match=r"^model=bert4rec: it tells masked items, and a teacher of the stage soft_targ"
    ):
        check_models(taught(config))


@pytest.mark.parametrize("model", ["sasrec", "gru4rec", "caser", "fmlp", "lru", "fpmc"])
def test_the_others_have_both(model: str) -> None:
    check_models(taught(composed(f"model={model}", "fusion=plain", "training.label_smoothing=0.1")))


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("training.label_smoothing=1", r"training\.label_smoothing=1(\.0)?: must be 0 or more and below 1"),
        ("training.label_smoothing=-0.1", r"training\.label_smoothing=-0\.1: must be 0 or more and below 1"),
        ("soft_targets.weight=0", r"soft_targets\.weight=0(\.0)?: must be above 0, 1 at most"),
        ("soft_targets.weight=1.5", r"soft_targets\.weight=1\.5: must be above 0, 1 at most"),
        ("soft_targets.temperature=0", r"soft_targets\.temperature=0(\.0)?: must be above 0"),
        ("soft_targets.count=0", r"soft_targets\.count=0: must be 1 or more, 2147483647 at most"),
    ],
)
def test_values_out_of_their_bounds(setting: str, message: str) -> None:
    with pytest.raises(UserError, match=f"^{message}$"):
        check_values(composed(setting))


def test_more_items_than_there_are() -> None:
    config = taught(composed("fusion=plain", "soft_targets.count=11"))
    check_catalogue(config, 11)
    with pytest.raises(UserError, match=r"^soft_targets\.count=11: synthetic has only 10 items; set it to 10 or less$"):
        check_catalogue(config, 10)
    check_catalogue(composed("soft_targets.count=11"), 10)
