"""What may be set of the training of recommenders."""

from __future__ import annotations

from dataclasses import dataclass

from tslrec.settings.bounds import LONGEST, bounded, one_of


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
