"""What may be set of the language model's stages: categories, the preference SFT, the augmentation."""

from __future__ import annotations

from dataclasses import dataclass

from tslrec.settings.bounds import LONGEST, bounded, one_of


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
