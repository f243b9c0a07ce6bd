"""What may be set of the rival methods of the paper's Table 2."""

from __future__ import annotations

from dataclasses import dataclass, field

from tslrec.settings.bounds import LONGEST, bounded, one_of
from tslrec.settings.language_models import LoraConfig

P5_TASKS = ("sequential", "straightforward")
"""The tasks of `P5Config.tasks`."""


@dataclass
class E4SRecConfig:
    """How the rival method E4SRec (Li et al. 2023) trains; the defaults are its authors'.

    Attributes:
        batch_size: instances per optimizer step.
        learning_rate: AdamW's peak, reached after the warm-up; a cosine to zero follows.
        weight_decay: AdamW's.
        max_epochs: passes over the instances; the best by validation NDCG@10 is kept (the original keeps the last).
        share: share of the instances that is trained on, drawn once.
        warmup_steps: optimizer steps during which the learning rate rises linearly.
        gradient_clip: largest norm of the gradient.
        eval_batch_size: users per forward pass.
        lora: its own adapter, instead of `llm.lora`.
    """

    batch_size: int = bounded(16, least=1)
    learning_rate: float = bounded(3e-4, above=0)
    weight_decay: float = bounded(0.0, least=0)
    max_epochs: int = bounded(3, least=1)
    share: float = bounded(1.0, above=0, most=1)
    warmup_steps: int = bounded(100, least=0)
    gradient_clip: float = bounded(1.0, above=0)
    eval_batch_size: int = bounded(128, least=1)
    lora: LoraConfig = field(default_factory=lambda: LoraConfig(16, 16, 0.05, ["gate_proj", "up_proj", "down_proj"]))


@dataclass
class LlamaRecConfig:
    """How the rival method LlamaRec (Yue et al. 2023) ranks a retriever's candidates; the defaults are its authors'.

    Attributes:
        candidates: items that the language model ranks, one letter each; in training the target and random others.
        history: items of a history in the prompt: the last ones.
        title_tokens: tokens of a title at most.
        max_tokens: tokens of a prompt at most; a longer one is cut on the left.
        batch_size: instances per optimizer step.
        tokens_at_once: tokens of a step that the language model reads in one pass, or a whole row of prompts where that
            is more: the passes of a larger step follow one another, and their gradients are summed, so that memory does
            not grow with `batch_size`. ZeRO always reads a step in one pass.
        learning_rate: AdamW's peak, reached after the warm-up; a straight line to zero follows.
        weight_decay: AdamW's.
        max_epochs: passes over the instances.
        share: share of the training instances that is trained on, drawn once.
        warmup_steps: optimizer steps during which the learning rate rises linearly.
        steps_per_epoch: validate about every so many optimizer steps; null: after each pass over the instances.
        patience: validations without a better NDCG@10 after which training stops.
        gradient_clip: largest norm of the gradient.
        eval_batch_size: users per forward pass.
        lora: its own adapter, instead of `llm.lora`.
    """

    candidates: int = bounded(20, least=2, most=26)
    history: int = bounded(20, least=1, most=LONGEST)
    title_tokens: int = bounded(32, least=1)
    max_tokens: int = bounded(1536, least=64)
    batch_size: int = bounded(16, least=1)
    tokens_at_once: int = bounded(4096, least=1)
    learning_rate: float = bounded(1e-4, above=0)
    weight_decay: float = bounded(0.0, least=0)
    max_epochs: int = bounded(1, least=1)
    share: float = bounded(1.0, above=0, most=1)
    warmup_steps: int = bounded(100, least=0)
    steps_per_epoch: int | None = bounded(100, least=1)
    patience: int = bounded(20, least=1)
    gradient_clip: float = bounded(1.0, above=0)
    eval_batch_size: int = bounded(32, least=1)
    lora: LoraConfig = field(default_factory=lambda: LoraConfig(8, 32, 0.05, ["q_proj", "v_proj"]))


@dataclass
class ItemIndexConfig:
    """Which tokens stand for an item in the texts of a language model (P5's item index: Hua et al. 2023).

    Attributes:
        kind: `collaborative`: paths in a tree of items that are bought together; `sequential`: numbers in the order in
            which training parts first show the items; `random`: numbers in a random order.
        user_order: the order in which users' training parts are read: `file`, or by length `short_first` or
            `long_first`. A random index does not read it.
        num_clusters: N, the groups that a group of a collaborative index is split into; at most `leaf_size`.
        leaf_size: M, the largest group that is not split, and the number of tokens that groups have in turn.
        counted: what a collaborative index counts: `pairs` of items in a training part, as OpenP5; or of the two
            orders of a pair the rarer one, `rarer_order`, as the code of Hua et al.
    """

    kind: str = one_of("collaborative", ["collaborative", "sequential", "random"])
    user_order: str = one_of("file", ["file", "short_first", "long_first"])
    num_clusters: int = bounded(20, least=2)
    leaf_size: int = bounded(500, least=2)
    counted: str = one_of("pairs", ["pairs", "rarer_order"])


@dataclass
class P5Config:
    """How the rival method P5 (Geng et al. 2022; OpenP5, Xu et al. 2024) trains; the defaults are OpenP5's for Beauty.

    Attributes:
        tasks: what is trained, in turn: `sequential` (the next item after a history) and `straightforward` (an item for
            a user, without a history). The next item of a history is evaluated, so `sequential` is among them.
        prompts: texts of each instance in an epoch, each by a template drawn at random; null: one by every template.
        share: share of the instances in an epoch, drawn anew for each.
        max_history: items of a history, the last ones.
        max_tokens: tokens of an input, its end token included; a longer one loses its end.
        batch_size: texts per optimizer step.
        learning_rate: AdamW's peak, reached after the warm-up; a linear fall to zero follows.
        weight_decay: AdamW's.
        warmup: share of all optimizer steps during which the learning rate rises linearly.
        gradient_clip: largest norm of the gradient.
        max_epochs: epochs.
        beams: of the beam search that lists ten items.
        eval_batch_size: users whose lists are searched at a time.
        tokens_at_once: of the decoder-only form (`method=p5_llm`): see `LlamaRecConfig`.
        lora: of the decoder-only form: its own adapter, instead of `llm.lora`; one of the same rank adapts the table of
            tokens.
    """

    tasks: list[str] = field(default_factory=lambda: list(P5_TASKS))
    prompts: int | None = bounded(3, least=1, most=1000)
    share: float = bounded(1.0, above=0, most=1)
    max_history: int = bounded(20, least=1, most=LONGEST)
    max_tokens: int = bounded(512, least=2, most=LONGEST)
    batch_size: int = bounded(64, least=1)
    learning_rate: float = bounded(1e-3, above=0)
    weight_decay: float = bounded(0.01, least=0)
    warmup: float = bounded(
        0.05, least=0, most=1, meaning="a share of all optimizer steps, not a number of steps (0.05: 5 % of them)"
    )
    gradient_clip: float = bounded(1.0, above=0)
    max_epochs: int = bounded(20, least=1)
    beams: int = bounded(10, least=10, most=1000)
    eval_batch_size: int = bounded(64, least=1)
    tokens_at_once: int = bounded(4096, least=1)
    lora: LoraConfig = field(default_factory=lambda: LoraConfig(8, 16, 0.05, ["q_proj", "v_proj"]))


@dataclass
class PODConfig:
    """How the rival method POD (Li et al. 2023) trains and generates; the defaults are its authors'.

    Attributes:
        released: do what the public code does (lileipisces/POD fd31697), which is:
            users and items are numbered in the data's order and in order of appearance, test items included (false: in
            a random order, and in order of appearance in training parts);
            the first pass of each task is in the data's order (false: shuffled as the others);
            validation and test items are never among the items that a user is to turn down (false: they may be);
            the decoder sees the padding of sources, and the padding of targets counts in the loss, so that results
            depend on the batches (false: neither);
            training stops at the epoch with which `patience` epochs were not the best, counted from the first (false:
            `patience` in a row);
            recommendations are free text, of which some names no item or one that stands further ahead; seen items are
            struck out of the beams (false: only items can be generated, under the masked protocol only unseen ones).
        prompt_vectors: trained vectors before each prompt, per task.
        learning_rate: AdamW's, constant.
        weight_decay: AdamW's.
        batch_size: samples per optimizer step, all of one task.
        max_epochs: epochs at most.
        steps_per_epoch: optimizer steps of an epoch; null: full batches in one pass of both tasks over their users.
        patience: epochs without a smaller validation loss, the mean of both tasks', after which training stops.
        history: items of a prompt, at most: the last ones before the target.
        candidates: items that a prompt of the top-N task offers.
        eval_batch_size: users per forward pass in evaluation.
        num_beams: beams of the search for a user's list of 10.
    """

    released: bool = False
    prompt_vectors: int = bounded(3, least=1, most=1000)
    learning_rate: float = bounded(5e-4, above=0)
    weight_decay: float = bounded(0.01, least=0)
    batch_size: int = bounded(64, least=1)
    max_epochs: int = bounded(100, least=1)
    steps_per_epoch: int | None = bounded(None, least=1)
    patience: int = bounded(5, least=1)
    history: int = bounded(20, least=1, most=LONGEST)
    candidates: int = bounded(100, least=1, most=LONGEST)
    eval_batch_size: int = bounded(64, least=1)
    num_beams: int = bounded(20, least=10, most=10_000)
