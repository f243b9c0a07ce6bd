"""Every configuration file composes, binds to the code that it names, and says only what its group may say."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import ConfigCompositionException

from support.checkout import CHECKOUT
from tslrec.config import Config
from tslrec.pipeline.check import check, check_llm
from tslrec.pipeline.composition import Composer, register_schema, to_config
from tslrec.pipeline.planning import source_config
from tslrec.pipeline.recipes import config_for
from tslrec.settings.trainer import TrainerConfig
from tslrec.stages.registry import find_stage
from tslrec.system.errors import UserError
from tslrec.system.targets import check_target

CONFIGS = CHECKOUT / "configs"
GROUPS = ("method", "data", "model", "llm", "t5", "fusion", "preset", "trainer", "logger", "launcher", "experiment")
CHOICES = [(group, path.stem) for group in GROUPS for path in sorted((CONFIGS / group).glob("*.yaml"))]
METHODS_OF_FUSIONS = {
    "category": ["method=ci"],
    "initial": ["method=text"],
}
"""Which method makes what a fusion reads, where `tslrec` does not."""
PAIRS = sorted((CONFIGS / "pair").rglob("*.yaml"))
PUBLISHED = [(model, data) for model in ("gru4rec", "caser", "sasrec", "fmlp") for data in ("beauty", "ml1m", "yelp")]


@pytest.fixture(autouse=True)
def hydra() -> Iterator[None]:
    register_schema()
    with initialize_config_dir(str(CONFIGS), version_base="1.3"):
        yield


def composed(*overrides: str) -> Config:
    return to_config(compose("train", overrides=list(overrides)))


def on_this_machine(config: Config) -> Config:
    """The same, with a trainer that any machine has: what a GPU is asked for is another check's."""
    return replace(config, trainer=TrainerConfig(name="cpu"))


def stems(group: str) -> set[str]:
    return {path.stem for path in (CONFIGS / group).glob("*.yaml")}


def test_every_group_has_choices() -> None:
    assert {group for group, _ in CHOICES} == set(GROUPS)
    assert PAIRS


@pytest.mark.parametrize(("group", "name"), CHOICES)
def test_composes_and_binds(group: str, name: str) -> None:
    overrides = [f"{group}={name}"] if group != "experiment" else [f"experiment={name}"]
    if group == "fusion":
        overrides += METHODS_OF_FUSIONS.get(name, ["method=tslrec"])
    if group == "data":
        overrides.append("data.path=some.file")
    config = composed(*overrides)
    check(on_this_machine(config))
    for key in ("strategy", "llm_strategy"):
        if isinstance(strategy := getattr(config.trainer, key), dict):
            check_target(f"trainer.{key}", strategy)


@pytest.mark.parametrize("path", PAIRS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_pair_is_named_by_its_choices_and_takes_effect(path: Path) -> None:
    triples = {
        (preset, f"{data}_{model}") for preset in stems("preset") for data in stems("data") for model in stems("model")
    }
    assert (path.parent.name, path.stem) in triples
    data, model = path.stem.rsplit("_", 1)
    config = composed(f"preset={path.parent.name}", f"data={data}", f"model={model}")
    for section, values in yaml.safe_load(path.read_text()).items():
        now = getattr(config, section)
        for key, value in values.items():
            assert (now[key] if isinstance(now, dict) else getattr(now, key)) == value


@pytest.mark.parametrize(("model", "data"), PUBLISHED)
def test_a_published_experiment_is_what_its_name_says(model: str, data: str) -> None:
    config = composed(f"experiment=tslrec_{model}_{data}")
    assert config.method.name == "tslrec"
    assert config.model["name"] == model
    assert config.data.name == data
    assert config.preset == "paper"
    assert config.llm.name == "llama2_13b"
    assert config.trainer.name == "deepspeed_zero3_offload"
    assert config.model["hidden_size"] == 256
    assert config.training.learning_rate == 1e-4


@pytest.mark.parametrize("path", sorted((CONFIGS / "experiment").glob("*.yaml")), ids=lambda path: path.stem)
def test_an_experiment_holds_choices_and_what_its_training_has_otherwise(path: Path) -> None:
    content = yaml.safe_load(path.read_text())
    assert set(content) <= {"defaults", "compare", "fallback_llm", "examples", "training"}
    config = composed(f"experiment={path.stem}")
    for key, value in content.get("training", {}).items():
        assert getattr(config.training, key) == value
    assert all(str(next(iter(entry))).startswith("override /") for entry in content["defaults"])


def test_the_best_on_beauty_is_what_the_ladder_chose() -> None:
    best, tuned = (
        composed("experiment=best_beauty"),
        composed("preset=tuned", "data=beauty", "model=fmlp", "method=text"),
    )
    assert (best.method.name, best.fusion["name"], best.training.label_smoothing) == ("text", "initial", 0.1)
    assert replace(best.training, label_smoothing=0.0) == tuned.training
    assert composed("experiment=best_beauty", "training.label_smoothing=0").training == tuned.training


def test_the_command_line_wins_over_the_experiment() -> None:
    config = composed("experiment=tslrec_fmlp_beauty", "llm=smollm2_135m", "trainer=cpu", "preset=small")
    assert (config.llm.name, config.trainer.name, config.preset) == ("smollm2_135m", "cpu", "small")
    assert (config.model["hidden_size"], config.training.max_epochs) == (64, 10)


def test_a_method_brings_its_fusion() -> None:
    assert composed("method=ci").fusion["name"] == "category"
    assert composed("method=tslrec").fusion["name"] == "gate"
    assert composed("experiment=quickstart", "method=ci").fusion["name"] == "category"


def test_other_choices_compose_the_run_that_a_person_would_have_started() -> None:
    composer = Composer(["experiment=tslrec_fmlp_yelp", "fusion.name=other", "seed=3", "preset=tuned"])
    assert composer.with_choices({"method": "ci"}, drop=("fusion",)) == composed(
        "experiment=tslrec_fmlp_yelp", "seed=3", "preset=tuned", "method=ci"
    )
    composer = Composer(["data=yelp", "model=fmlp", "model.num_layers=3", "source_model=sasrec", "preset=tuned"])
    source = composer.with_choices({"model": "sasrec", "source_model": None})
    assert source == composed("data=yelp", "model=sasrec", "preset=tuned")
    assert source.model["norm_first"]


@pytest.mark.parametrize("stage", ["preferences", "sft", "augment"])
def test_every_target_model_shares_the_stages_over_a_source_model(stage: str) -> None:
    composer = Composer(["data=beauty", "model=sasrec", "source_model=fmlp", "preset=tuned", "seed=3"])
    config = composer.with_choices({})
    alone = composed("data=beauty", "model=fmlp", "preset=tuned", "seed=3")
    assert config.training.max_len != alone.training.max_len
    declared = find_stage(stage)
    assert declared is not None
    crossed = config_for(declared, config, source_config(config, composer))
    assert declared.settings(crossed) == declared.settings(alone)
    assert declared.label(crossed) == declared.label(alone)


@pytest.mark.parametrize(
    "override",
    [
        "model.hiden_size=3",
        "training.learning_rat=1",
        "sft.epochs=2",
        "models=sasrec",
        "seeds=1",
        "llm.lora.rnk=2",
    ],
)
def test_a_misspelt_key_does_not_compose(override: str) -> None:
    with pytest.raises(ConfigCompositionException):
        composed(override)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+model.window=3"], r"model\.window: .*SASRec has no such parameter.*num_heads"),
        (["model.num_layers=two"], r"model\.num_layers=two: must be of type int"),
        (["model._target_=tslrec.models.backbones.sasrec.Sas"], r"model\._target_.*cannot be imported"),
        (["model._target_=tslrec.nothing.Sas"], r"model\._target_.*cannot be imported"),
        (
            ["~model.hidden_size", "+model.item_embedding=1"],
            r"model\.item_embedding: .*no such parameter to set",
        ),
        (["+data.reader.rows=3"], r"data\.reader\.rows: .*no such parameter"),
        (["method=ci", "fusion=gate"], r"fusion=gate needs the stage 'augment'.*method=ci"),
        (["method.stages=[backbone,fusions]"], r"no stage 'fusions'.*backbone, preferences"),
        (["method.stages=[preferences,backbone]"], r"out of order"),
        (["method.stages=[backbone,sft]"], r"'sft' needs 'preferences'"),
        (["training.selection=best"], r"training\.selection=best: must be one of masked, unmasked"),
        (["preferences.num_clusters=0"], r"preferences\.num_clusters=0: must be 1 or more"),
        (["training.num_negatives=0"], r"training\.num_negatives=0: must be 1 or more"),
        (["training.negative_exponent=-1"], r"training\.negative_exponent=-1.*from 0 to 10"),
        (["training.steps_per_epoch=0"], r"training\.steps_per_epoch=0: must be 1 or more"),
        (["training.validation_users=0"], r"training\.validation_users=0: must be 1 or more"),
        (["training.test_users=-3"], r"training\.test_users=-3: must be 1 or more"),
        (["sft.held_back=0.7"], r"sft\.held_back=0\.7: must be from 0 to 0\.5"),
        (["sft.steps_per_epoch=0"], r"sft\.steps_per_epoch=0: must be 1 or more"),
        (["llm.dtype=float16"], r"llm\.dtype=float16: is for GPUs, trainer=cpu has none"),
        (["knowledge.layer=0"], r"knowledge\.layer=0: must be last, mean, or the number of a layer, from 1"),
        (["knowledge.layer=31"], r"knowledge\.layer=31: llm=smollm2_135m has 30 layers"),
        (["knowledge.position=first"], r"knowledge\.position=first: must be one of response, item"),
        (["item_text.layer=31"], r"item_text\.layer=31: llm=smollm2_135m has 30 layers"),
        (["item_text.control=randm"], r"item_text\.control=randm: must be one of permuted, random \(nearest: random\)"),
        (["item_text.whitened=true"], r"item_text\.whitened=true: .*set item_text\.size"),
        (["method=text", "item_text.size=577"], r"item_text\.size=577: .*llm=smollm2_135m have 576 numbers"),
        (
            ["method=text", "item_text.size=null", "item_text.whitened=false"],
            r"fusion=initial: .*'item_text' gives 576; set item_text\.size=64",
        ),
        (["fusion=initial"], r"fusion=initial: .*'augment' gives 576; choose another fusion"),
        (["sft.warmup=nan"], r"sft\.warmup=nan: must be from 0 to 1"),
        (["training.weight_decay=inf"], r"training\.weight_decay=inf: must be 0 or more"),
        (["logger=tensorboard", "+logger.project=x"], r"logger\.project: .* has no such parameter"),
        (["llm.weight_bits=5"], r"llm\.weight_bits=5: must be 8, 4 or null"),
        (["llm.weight_bits=4"], r"llm\.weight_bits=4: needs a GPU, trainer=cpu has none"),
        (["training.learning_rate=0"], r"training\.learning_rate=0.*above 0"),
        (
            ["+trainer.strategy={_target_:lightning.pytorch.strategies.DDPStrategy,stage:3}"],
            r"trainer\.strategy\.stage",
        ),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(overrides: list[str], message: str) -> None:
    overrides = [text.lstrip("+") if text.startswith("+trainer") else text for text in overrides]
    with pytest.raises(UserError, match=message) as raised:
        check(composed(*overrides))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["llm=tiny", "trainer=gpu"], r"llm=tiny has random weights, which are not quantised"),
        (["trainer=deepspeed_zero3_offload"], r"partitions weights, not quantised ones; choose trainer=ddp"),
        (["trainer=ddp"], r"needs bitsandbytes: pip install 'tslrec\[quantized\]'"),
    ],
)
def test_quantised_weights_are_refused_where_they_cannot_be(
    overrides: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(UserError, match=message):
        check_llm(composed(*overrides, "llm.weight_bits=4"))


def test_a_missing_gpu_is_refused() -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    with pytest.raises(UserError, match=r"trainer=gpu needs 1 GPU.*trainer=cpu"):
        check(composed("trainer=gpu"))
    with pytest.raises(UserError, match=r"trainer=deepspeed_zero3_offload needs a GPU"):
        check(composed("experiment=tslrec_sasrec_yelp"))


def test_a_target_that_lacks_a_value_is_refused() -> None:
    def reader(path: str, column: str) -> Any: ...

    import sys

    module = sys.modules[__name__]
    module.reader = reader  # type: ignore[attr-defined]
    with pytest.raises(UserError, match=r"data\.reader\.column: .* needs it"):
        check_target("data.reader", {"_target_": f"{__name__}.reader"}, given={"path"})


def test_the_schema_and_the_files_agree_on_every_key() -> None:
    sections = {"llm": "LLMConfig", "t5": "EncoderDecoderConfig", "trainer": "TrainerConfig", "data": "DataConfig"}
    source = "".join(path.read_text() for path in (CHECKOUT / "src" / "tslrec" / "settings").glob("*.py"))
    for group, section in sections.items():
        keys = {key for path in (CONFIGS / group).glob("*.yaml") for key in yaml.safe_load(path.read_text())}
        body = source.split(f"class {section}:")[1].split("@dataclass")[0]
        fields = set(re.findall(r"^    (\w+):", body, flags=re.MULTILINE))
        assert keys <= fields, group
