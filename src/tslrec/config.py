"""The whole configuration, of the sections in `tslrec.settings`, and what of it is not at its default.

A section whose `_target_` names a class or function (`model`, `fusion`, `data.reader`, `logger`, strategies) has that
signature as its schema; `tslrec.pipeline.check` binds it before any work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, get_type_hints

from omegaconf import MISSING

from tslrec.settings.bounds import bounded
from tslrec.settings.choices import MethodConfig
from tslrec.settings.data import DataConfig
from tslrec.settings.language_models import EncoderDecoderConfig, LLMConfig
from tslrec.settings.metrics import DEFAULT_METRICS
from tslrec.settings.preference_sft import KnowledgeConfig, PreferencesConfig, SFTConfig
from tslrec.settings.rivals import E4SRecConfig, ItemIndexConfig, LlamaRecConfig, P5Config, PODConfig
from tslrec.settings.second_stages import EaseConfig, EnsembleConfig, ItemTextConfig, SoftTargetsConfig
from tslrec.settings.trainer import TrainerConfig
from tslrec.settings.training import TrainingConfig


@dataclass
class Config:
    """A whole run.

    Attributes:
        method: the stages.
        data: the data set.
        model: the backbone: `_target_` and its numbers.
        source_model: the backbone of stage 1 where it is another than `model` (a name in `configs/model`).
        fusion: the item embedding of the last stage: `_target_` and its numbers.
        llm: the language model.
        training: how recommenders train.
        preferences: the latent categories.
        sft: how the language model trains.
        knowledge: what is read from the language model.
        e4srec: the rival method E4SRec.
        llamarec: the rival method LlamaRec.
        item_index: how items are written in the texts of a language model.
        p5: the rival method P5.
        pod: the rival method POD.
        t5: the encoder-decoder language model of the rivals P5 and POD.
        ease: the linear recommender EASE.
        ensemble: how the scores of the members are summed.
        soft_targets: what a teacher's scores add to the targets.
        item_text: what is read from the items' titles.
        members: recommenders of other runs that a stage reads. Each is a text of words that its command line has
            otherwise than this one, such as `model=fmlp seed=1`; its method is `base` where it names none.
        trainer: devices and precision.
        logger: the tracker beside the CSV logs, which are always written: `_target_` and its options.
        metrics: what an evaluation computes under both ranking protocols, each with its cutoff: of the target's rank
            HR@k, NDCG@k, MRR@k, Recall@k (with one target equal to HR@k), Precision@k, MAP@k (with one target equal to
            MRR@k); of the recommended lists, in the test only, Coverage@k, Popularity@k, Gini@k. Another list than the
            default computes the stages that evaluate again, and with the backbone all stages that read it.
        compare: methods whose rows stand beside this one's in the closing table.
        continue_from: the folder of a finished run, `artifacts/runs/NAME`, that this run trains on: on data with new
            users and items, from its weights, with its language-model adapter and its knowledge of the items.
        fallback_llm: a name in `configs/llm` used where the weights of `llm` cannot be had; null refuses.
        examples: users whose recommendations are printed at the end of the run.
        preset: the chosen set of numbers, for the record.
        seed: the run's; every stage derives its own from it.
        artifacts: folder of stage results.
        cache: folder of downloaded data and converted weights.
    """

    method: MethodConfig = MISSING
    data: DataConfig = MISSING
    model: dict[str, Any] = MISSING
    source_model: str | None = None
    fusion: dict[str, Any] = MISSING
    llm: LLMConfig = MISSING
    training: TrainingConfig = field(default_factory=TrainingConfig)
    preferences: PreferencesConfig = field(default_factory=PreferencesConfig)
    sft: SFTConfig = field(default_factory=SFTConfig)
    knowledge: KnowledgeConfig = field(default_factory=KnowledgeConfig)
    e4srec: E4SRecConfig = field(default_factory=E4SRecConfig)
    llamarec: LlamaRecConfig = field(default_factory=LlamaRecConfig)
    item_index: ItemIndexConfig = field(default_factory=ItemIndexConfig)
    p5: P5Config = field(default_factory=P5Config)
    pod: PODConfig = field(default_factory=PODConfig)
    t5: EncoderDecoderConfig = field(default_factory=EncoderDecoderConfig)
    ease: EaseConfig = field(default_factory=EaseConfig)
    ensemble: EnsembleConfig = field(default_factory=EnsembleConfig)
    soft_targets: SoftTargetsConfig = field(default_factory=SoftTargetsConfig)
    item_text: ItemTextConfig = field(default_factory=ItemTextConfig)
    members: list[str] = field(default_factory=list)
    trainer: TrainerConfig = MISSING
    logger: dict[str, Any] = MISSING
    metrics: list[str] = field(default_factory=lambda: list(DEFAULT_METRICS))
    compare: list[str] = field(default_factory=list)
    continue_from: str | None = None
    fallback_llm: str | None = None
    examples: int = bounded(0, least=0)
    preset: str = MISSING
    seed: int = bounded(0, least=0, most=2**63 - 1)
    artifacts: str = "artifacts"
    cache: str = MISSING


def differing(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """The entries of `values` that are not in `defaults`, nested mappings entry by entry."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        default = defaults.get(name, MISSING)
        if isinstance(value, Mapping) and isinstance(default, Mapping):
            if nested := differing(value, default):
                found[name] = nested
        elif value != default:
            found[name] = value
    return found


def non_defaults(section: Any) -> dict[str, Any]:
    """The settings of a section (a dataclass) that are not at their default.

    Keys of results are made of these alone, so a setting that is added later leaves them as they are. A default that
    is changed must raise the version of every stage that reads it.
    """
    return differing(asdict(section), asdict(type(section)()))


def section_defaults(name: str) -> dict[str, Any] | None:
    """The defaults of a section of the configuration; None of one that no dataclass describes."""
    kind = get_type_hints(Config).get(name)
    return asdict(kind()) if is_dataclass(kind) and isinstance(kind, type) else None


def from_recorded(value: Mapping[str, Any]) -> Config:
    """A configuration from plain dicts, as `result.json` records it.

    Settings that no longer exist are left out, and settings that were added since have their defaults.
    """
    config: Config = of_kind(Config, value)
    return config


def of_kind(kind: Any, value: Any) -> Any:
    """A dataclass, nested ones included, from plain dicts; any other value as it is."""
    if not is_dataclass(kind) or not isinstance(value, Mapping):
        return value
    hints = get_type_hints(kind)
    given = {each.name: of_kind(hints[each.name], value[each.name]) for each in fields(kind) if each.name in value}
    return kind(**given)  # type: ignore[operator]
