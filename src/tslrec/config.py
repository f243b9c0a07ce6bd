"""What may be set: plain dataclasses, bounds beside the fields, no heavy import, so that a typo is refused at once.

A section whose `_target_` names a class or function (`model`, `fusion`, `data.reader`, `logger`, strategies) has that
signature as its schema; `tslrec.pipeline.check` binds it before any work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, is_dataclass
from typing import Any, get_type_hints

from omegaconf import MISSING

from tslrec.settings.bounds import LONGEST, bounded, one_of
from tslrec.settings.language_models import EncoderDecoderConfig, LLMConfig
from tslrec.settings.rivals import E4SRecConfig, ItemIndexConfig, LlamaRecConfig, P5Config, PODConfig
from tslrec.settings.second_stages import (
    EaseConfig,
    EnsembleConfig,
    ItemTextConfig,
    SoftTargetsConfig,
)

OWN_KEYS = frozenset({"name", "title", "place"})
"""Keys of a section with a `_target_` that are no parameters: its name, and how tables title and order it."""

MODEL_KEYS = frozenset({*OWN_KEYS, "hidden_size"})
"""Keys of the `model` section that are no parameters of the backbone: the item embedding's width, and labels."""

DEFAULT_METRICS = ("HR@5", "HR@10", "NDCG@5", "NDCG@10")
"""The metrics of an evaluation where `Config.metrics` names no others: those of the paper's Table 2."""

SELECTING_METRIC = "NDCG@10"
"""The validation metric that selects a recommender's weights; every validation computes it."""

MONITORED = f"validation/{{protocol}}/{SELECTING_METRIC}"
"""Its name in logs, by the ranking protocol of `TrainingConfig.selection`."""

PRECISIONS = (
    "32-true", "16-mixed", "bf16-mixed", "bf16-true", "16-true", "64-true", "32", "16", "bf16", "64",
    "transformer-engine", "transformer-engine-float16",
)  # fmt: skip
"""Lightning's names of precisions, the short ones included."""

LAST_PLACE = 1000
"""Of a choice that states no place in tables."""


@dataclass
class MethodConfig:
    """A method: a list of stages and, through `override /fusion`, a choice of fusion.

    Attributes:
        name: the method's name in file names.
        stages: names from `tslrec.stages.registry.STAGES`, in that order.
        title: the method's name in tables; null: `name`.
        place: its place in tables, lower first; ties by name.
    """

    name: str = MISSING
    stages: list[str] = MISSING
    title: str | None = None
    place: int = LAST_PLACE


@dataclass
class DownloadConfig:
    """A public file.

    Attributes:
        url: where it is; null for data that are not downloaded.
        sha256: hex digest that it must have.
    """

    url: str | None = None
    sha256: str | None = None


@dataclass
class DataConfig:
    """One data set.

    Attributes:
        name: its name in file names and keys.
        title: its name in tables.
        reader: `_target_` of a function of `tslrec.data.formats` and its options.
        path: the raw file; null looks into the cache and downloads.
        download: the public file, pinned by its sha256.
        min_user_interactions: k-core filter: users with fewer interactions are dropped, repeated together with
            `min_item_interactions` until both bounds hold.
        min_item_interactions: the same for items.
        place: its place in tables, lower first.
        titles: a CSV or Parquet file with the columns `item_id` and `title`, for methods that read titles, for
            `tslrec recommend` and `export`; it influences no other training. `{folder}` in it is the raw file's folder.
    """

    name: str = MISSING
    title: str = MISSING
    reader: dict[str, Any] = MISSING
    path: str | None = None
    download: DownloadConfig = field(default_factory=DownloadConfig)
    min_user_interactions: int = bounded(0, least=0)
    min_item_interactions: int = bounded(0, least=0)
    place: int = LAST_PLACE
    titles: str | None = None


@dataclass
class TrainingConfig:
    """How the two stages that train a sequential recommender (backbone and fusion) train it.

    Attributes:
        max_len: length of the input, in items: the last ones of the history.
        batch_size: training targets per optimizer step (on average, where all positions of a sequence train at once).
        learning_rate: Adam's, constant.
        weight_decay: Adam's L2 penalty.
        max_epochs: epochs at most.
        steps_per_epoch: validate every so many optimizer steps instead of once per pass over the data; the next epoch
            continues where this one stopped. Null: an epoch is one pass.
        patience: validations without a better NDCG@10 after which training stops.
        all_positions: train every position of a sequence in one pass where the backbone is causal; false: one example
            per prefix. A backbone that tells masked items trains on whole rows either way.
        num_negatives: items drawn per step for a sampled softmax; null: softmax over all items.
        label_smoothing: share of each target that all items have together, each the same, in the softmax over them.
        negative_exponent: negatives are drawn with probability proportional to (1 + training count) to this power;
            0 draws uniformly.
        selection: ranking protocol whose validation NDCG@10 selects the weights: `masked` or `unmasked`.
        eval_batch_size: users scored at a time.
        validation_users: users per validation, drawn once by a fixed seed; null: all.
        test_users: the same for the test.
    """

    max_len: int = bounded(50, least=1, most=LONGEST)
    batch_size: int = bounded(1024, least=1)
    learning_rate: float = bounded(1e-3, above=0)
    weight_decay: float = bounded(0.0, least=0)
    max_epochs: int = bounded(200, least=1)
    steps_per_epoch: int | None = bounded(None, least=1)
    patience: int = bounded(10, least=1)
    all_positions: bool = True
    num_negatives: int | None = bounded(None, least=1)
    label_smoothing: float = bounded(0.0, least=0, below=1)
    negative_exponent: float = bounded(1.0, least=0, most=10)
    selection: str = one_of("masked", ["masked", "unmasked"])
    eval_batch_size: int = bounded(512, least=1)
    validation_users: int | None = bounded(None, least=1)
    test_users: int | None = bounded(None, least=1)


@dataclass
class PreferencesConfig:
    """How items are grouped into latent categories (paper, Section 4.1).

    Attributes:
        num_clusters: K of the k-means over the item embeddings.
        num_starts: runs of k-means from other initial centroids, of which the best is kept.
    """

    num_clusters: int = bounded(64, least=1)
    num_starts: int = bounded(4, least=1)


@dataclass
class SFTConfig:
    """How the preference SFT trains (paper, Section 4.1), and how the augmentation runs.

    Attributes:
        batch_size: users per optimizer step.
        learning_rate: AdamW's peak, reached after the warm-up; a cosine to zero follows.
        weight_decay: AdamW's; 0 makes it the paper's Adam.
        max_epochs: passes over the users.
        warmup: share of all optimizer steps during which the learning rate rises linearly.
        gradient_clip: largest norm of the gradient.
        augment_batch_size: items per forward pass of the augmentation.
        augment_shard_size: items per shard file of the knowledge store. A killed run loses at most the shard that each
            process was computing.
        held_back: share of the users who are never trained on. Their error is measured after each epoch, and the
            adapter with the smallest one is kept. 0: all users train, as in the paper, and the last adapter is kept.
        patience: validations without a smaller error on the held-back users after which training stops.
        steps_per_epoch: validate every so many optimizer steps; null: after each pass over the users.
        eval_batch_size: held-back users per forward pass.
        item_input: what the language model reads of an item: `embedding`, its projected embedding, as in the paper;
            `title`, the tokens of its title; `both`, one after the other. All but the first read the items' titles.
        title_tokens: first tokens of a title that are read.
    """

    batch_size: int = bounded(16, least=1)
    learning_rate: float = bounded(1e-3, above=0)
    weight_decay: float = bounded(0.0, least=0)
    max_epochs: int = bounded(1, least=1)
    warmup: float = bounded(
        0.05, least=0, most=1, meaning="a share of all optimizer steps, not a number of steps (0.05: 5 % of them)"
    )
    gradient_clip: float = bounded(1.0, above=0)
    augment_batch_size: int = bounded(256, least=1)
    augment_shard_size: int = bounded(4096, least=1)
    held_back: float = bounded(0.0, least=0, most=0.5)
    patience: int = bounded(3, least=1)
    steps_per_epoch: int | None = bounded(None, least=1)
    eval_batch_size: int = bounded(128, least=1)
    item_input: str = one_of("embedding", ["embedding", "title", "both"])
    title_tokens: int = bounded(8, least=1, most=LONGEST)

    @property
    def reads_titles(self) -> bool:
        """Whether the language model reads the items' titles."""
        return self.item_input != "embedding"

    @property
    def item_tokens(self) -> int:
        """Tokens of an item at most."""
        return {"embedding": 1, "title": self.title_tokens, "both": 1 + self.title_tokens}[self.item_input]


@dataclass
class KnowledgeConfig:
    """Which hidden state of the language model is an item's knowledge; the paper does not say (Section 4.2).

    Attributes:
        layer: `last`, after the final norm, as h^u of Eq. 1; `mean` of all layers; or a layer's number, from 1.
        position: `response`, the prompt's last token, as h^u; or `item`, the item's last token: the only one of an
            embedding, else the end of its title.
    """

    layer: str = "last"
    position: str = one_of("response", ["response", "item"])


@dataclass
class TrainerConfig:
    """Where and in which precision stages run.

    Attributes:
        name: its name in messages.
        accelerator: `cpu`, `gpu` or `cuda`.
        devices: processes per node, one per device; -1 or `auto`: every GPU of the node; a list: the GPUs with these
            numbers.
        num_nodes: nodes of the job.
        strategy: of the recommenders: a Lightning name, or a section with a `_target_`.
        precision: of the recommenders, as Lightning names it (`32-true`, `bf16-mixed`, …).
        llm_strategy: of the language model.
        llm_precision: of what is trained with the language model, whose own frozen weights have `llm.dtype`.
            `bf16-true` rounds the trained weights to bf16, too; of the strategies only DeepSpeed keeps fp32 copies.
        matmul_precision: of float32 products in training steps on a GPU: `highest` is float32; `high` and `medium`
            allow TF32, which keeps 10 bits of each factor's fraction. Evaluations and CPUs always use `highest`.
        deterministic: on a GPU use only operations that give the same bits again, and refuse those that have none.
        checkpoint_seconds: wall time between two checkpoints, and so the most that a killed training loses; 0 writes
            one after every optimizer step.
        step_graphs: train recommenders by CUDA graphs where that is possible: on one GPU, in fp32, without a sampled
            softmax. False: launch each kernel of each step.
        device: the kind of device that `tslrec plan` forecasts for: a name in `tslrec.system.device_profiles`, or a
            section with the numbers of another device. It changes no result.
    """

    name: str = MISSING
    accelerator: str = one_of("cpu", ("cpu", "gpu", "cuda"))
    devices: Any = 1
    num_nodes: int = bounded(1, least=1)
    strategy: Any = "auto"
    precision: str = one_of("32-true", PRECISIONS)
    llm_strategy: Any = "auto"
    llm_precision: str = one_of("32-true", PRECISIONS)
    matmul_precision: str = one_of("highest", ("highest", "high", "medium"))
    deterministic: bool = False
    checkpoint_seconds: float = bounded(300.0, least=0)
    step_graphs: bool = True
    device: Any = "cpu"

    @property
    def on_gpu(self) -> bool:
        """Whether stages compute on GPUs."""
        return self.accelerator in ("gpu", "cuda")


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
