"""Any value of any key passes the check, and its modules can be built, or is refused in one line with its key."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from support.checkout import CHECKOUT
from tslrec.config import Config, from_recorded
from tslrec.llm.weights_source import resolve
from tslrec.pipeline.check import check
from tslrec.pipeline.composition import register_schema, to_config
from tslrec.stages.trial import try_backbone
from tslrec.system.errors import UserError

EXAMPLES = 300
"""Examples of the test, of all keys together."""

MODELS = ("sasrec", "fmlp", "caser", "gru4rec", "fpmc", "bert4rec", "lru")

FOLDERS = frozenset({"artifacts", "cache", "data.path", "data.titles", "continue_from", "llm.path"})
"""Keys of files, whose existence the check does not look at."""


def composed(model: str) -> DictConfig:
    register_schema()
    with initialize_config_dir(str(CHECKOUT / "configs"), version_base="1.3"):
        found: DictConfig = compose("train", overrides=["method=tslrec", "llm=tiny", f"model={model}"])
    return found


COMPOSED = {model: composed(model) for model in MODELS}


def keys_of(values: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """Every key of a configuration that holds no section."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from keys_of(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


KEYS = [(model, key) for model, config in COMPOSED.items() for key in keys_of(asdict(to_config(config)))]

VALUES = st.one_of(
    st.integers(-3, 12),
    st.sampled_from([0, -1, 7, 65, 255, 4096, 10**5, 2**31, 2**63, 10**30, -(10**12)]),
    st.floats(-2, 2),
    st.sampled_from([float("inf"), float("-inf"), float("nan"), 1e308, 1e-308, 0.999999, 1.0]),
    st.sampled_from(["", "auto", "two", "32-true", "a\nb", "é" * 400, "masked", "NDCG@10", "1e9", "null", "\0", "²"]),
    st.text(max_size=6),
    st.none(),
    st.booleans(),
    st.lists(st.one_of(st.integers(-1, 3), st.sampled_from(["q_proj", "HR@3", "HR@0", "", "x"])), max_size=3),
    st.dictionaries(st.sampled_from(["a", "_target_"]), st.integers(0, 2), max_size=2),
)


def changed(model: str, key: str, value: Any) -> Config | None:
    """The configuration with one other value; None if its type is refused when it is composed."""
    config = copy.deepcopy(COMPOSED[model])
    try:
        OmegaConf.update(config, key, value, merge=False)
        return to_config(config)
    except (OmegaConfBaseException, UnicodeError):
        return None


@pytest.mark.slow
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(chosen=st.sampled_from(KEYS), value=VALUES)
@example(chosen=("sasrec", "model.num_heads"), value=7)
@example(chosen=("gru4rec", "model.gru_size"), value=2**31)
@example(chosen=("fmlp", "training.max_len"), value=10**5)
@example(chosen=("caser", "training.max_len"), value=10**5)
@example(chosen=("caser", "model.reg_weight"), value=-1.0)
@example(chosen=("bert4rec", "training.max_len"), value=1)
@example(chosen=("bert4rec", "model.mask_ratio"), value=1.5)
@example(chosen=("sasrec", "model.hidden_size"), value=2**20)
@example(chosen=("sasrec", "llm.random.num_hidden_layers"), value=10**9)
@example(chosen=("sasrec", "llm.lora.rank"), value=65536)
def test_any_value_passes_or_is_refused_in_one_line(chosen: tuple[str, str], value: Any) -> None:
    model, key = chosen
    try:
        config = changed(model, key, value)
        if config is None:
            return
        check(config, resolve(config.llm, CHECKOUT / "no-cache") if key.startswith("llm.") else None)
    except UserError as error:
        line = str(error)
        assert line
        assert "\n" not in line
        assert len(line) <= 300
        assert names(line, key), f"{line!r} does not name {key}"
        return
    if key.startswith("model.") and key not in ("model.title", "model.name"):
        try_backbone(config.model, config.model["hidden_size"], config.training.max_len)


def names(line: str, key: str) -> bool:
    """Whether a message names a key: whole, or by its section and name where a group's choice stands for both."""
    section, _, last = key.rpartition(".")
    alone = key in line or f"{section.split('.')[0]}=" in line or f"llm {section}" in line
    return alone or last in line or section in line


def test_bpr_and_a_sampled_softmax_exclude_each_other() -> None:
    config = copy.deepcopy(COMPOSED["fpmc"])
    OmegaConf.update(config, "model.bpr", True)
    check(to_config(config))
    OmegaConf.update(config, "training.num_negatives", 20)
    with pytest.raises(UserError, match=r"^training\.num_negatives=20: model\.bpr=true compares .*; set one of"):
        check(to_config(config))


def test_a_backbone_of_a_persons_own_is_checked_like_the_others() -> None:
    own = from_recorded(asdict(to_config(COMPOSED["sasrec"])))
    model = {"name": "mine", "_target_": f"{__name__}.odd_backbone", "hidden_size": 8, "width": 9}
    with pytest.raises(UserError, match=r"model\.width=9: odd_backbone cannot be built: .*"):
        check(replace(own, model=model))
    check(replace(own, model={**model, "width": 8}))
    needs = {**model, "_target_": f"{__name__}.nothing", "width": 1}
    with pytest.raises(UserError, match=r"nothing cannot be built: it makes no backbone"):
        check(replace(own, model=needs))


def nothing(item_embedding: Any, num_users: int, max_len: int, *, width: int = 8) -> None:
    """A function that is no backbone."""


def odd_backbone(item_embedding: Any, num_users: int, max_len: int, *, width: int = 8) -> Any:
    """A backbone of a user: it fits only where its width is the item embedding's."""
    import torch

    from tslrec.models.backbones.base import Backbone

    class Odd(Backbone):
        def __init__(self) -> None:
            super().__init__(item_embedding, max_len)
            self.layer = torch.nn.Linear(width, width)

        def forward(self, items_BL: Any, lengths_B: Any, users_B: Any, table_ID: Any = None) -> Any:
            return self.layer(self.embed(items_BL, table_ID).mean(dim=1))

    return Odd()
