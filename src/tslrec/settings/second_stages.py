"""What may be set of what a second stage is given: other recommenders, soft targets, texts of items."""

from __future__ import annotations

from dataclasses import dataclass

from tslrec.settings.bounds import bounded, one_of


@dataclass
class EaseConfig:
    """EASE (Steck 2019): a closed form for items from the items that stand in the same training parts.

    Attributes:
        penalty: the L2 penalty λ on the item weights.
    """

    penalty: float = bounded(250.0, above=0)


@dataclass
class EnsembleConfig:
    """How the scores of the members are summed.

    Attributes:
        scores: `z`: each member's scores of a user have mean 0 and standard deviation 1 over the items; `raw`: as they
            are, which ranks as their log-softmax does.
        weights: of the members, in their order, of which only the ratios count; null: those with the best validation
            NDCG@10 of a search.
    """

    scores: str = one_of("z", ["z", "raw"])
    weights: list[float] | None = None


@dataclass
class SoftTargetsConfig:
    """What a teacher's scores add to the target of each training position.

    Attributes:
        count: items of a position that have a share: those that the teacher scores highest.
        temperature: the teacher's scores are divided by it before the softmax over these items; null: the one at which
            the softmax over all items fits the validation items best.
        weight: what the teacher's shares count for; the target item keeps the rest.
    """

    count: int = bounded(100, least=1)
    temperature: float | None = bounded(None, above=0)
    weight: float = bounded(0.5, above=0, most=1)


@dataclass
class ItemTextConfig:
    """How titles are read, and what of their hidden states is an item's knowledge.

    Attributes:
        layer: whose hidden states are averaged over a title's tokens: `last`, after the final norm; `mean` of all
            layers; or a layer's number, from 1.
        title_tokens: tokens of a title at most; the rest of a longer one is not read.
        batch_size: titles per forward pass.
        shard_size: titles per shard. A killed run loses at most the shard that each process was computing.
        size: keep so many principal components; null: the states themselves.
        whitened: give each principal component the standard deviation 1. The fusion `gate` does so anyway, since it
            standardises each number of the knowledge.
        control: `permuted`: the vectors are dealt to the items at random; `random`: vectors are drawn from a normal
            distribution of the same covariance; null: neither.
    """

    layer: str = "last"
    title_tokens: int = bounded(32, least=1)
    batch_size: int = bounded(64, least=1)
    shard_size: int = bounded(1024, least=1)
    size: int | None = bounded(None, least=1)
    whitened: bool = False
    control: str | None = one_of(None, ["permuted", "random"])
