"""The training loop and the evaluation of P5 (Geng et al. 2022).

Shapes: B users, K items of a list, I items.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor

from tslrec.evaluation.hooks import ListedUsers, RankingHooks
from tslrec.evaluation.protocols import LIST_LENGTH
from tslrec.llm.encoder_decoder.beams import generate_items, view_of
from tslrec.llm.encoder_decoder.model import EncoderDecoder
from tslrec.llm.encoder_decoder.optimizing import adamw, linear_rate_at
from tslrec.llm.encoder_decoder.trie import Trie
from tslrec.settings.metrics import DEFAULT_METRICS
from tslrec.stages.p5.packed import PackedTexts, PackedUsers
from tslrec.training.csv_log import log_step

EPSILON = 1e-6
"""AdamW's, as in OpenP5 (commit 7f11038)."""


class P5Module(RankingHooks):
    """Cross-entropy of the item's text; lists of items by beam search over the texts of all items.

    Args:
        model: the language model.
        trie: of all items.
        num_steps: optimizer steps of the whole training.
        learning_rate: AdamW's peak, reached after the warm-up; a linear fall to zero follows.
        weight_decay: AdamW's, of all weights.
        warmup: share of all steps during which the learning rate rises linearly.
        beams: of a search.
        metrics: see `RankingHooks.prepare_ranking`.
        training_counts_I: see `RankingHooks.prepare_ranking`.
    """

    def __init__(
        self,
        model: EncoderDecoder,
        trie: Trie,
        *,
        num_steps: int,
        learning_rate: float,
        weight_decay: float,
        warmup: float,
        beams: int,
        metrics: Sequence[str] = DEFAULT_METRICS,
        training_counts_I: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["model", "trie", "metrics", "training_counts_I"])
        self.model = model
        self.trie = trie
        self.num_steps = num_steps
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.warmup = warmup
        self.beams = beams
        self.prepare_ranking(metrics, training_counts_I, list_length=LIST_LENGTH)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW over all weights, its learning rate updated every step (`linear_rate_at`)."""
        optimizer = adamw(self.model, learning_rate=self.learning_rate, epsilon=EPSILON, weight_decay=self.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: linear_rate_at(step, self.num_steps, self.warmup)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, batch: PackedTexts, batch_idx: int) -> Tensor:
        """One optimizer step over this process's share of its texts; DDP averages the gradients of all processes."""
        loss: Tensor = self.model(batch.batch)
        shown = loss.detach().double()
        self.log("loss", shown, logger=False, batch_size=len(batch.batch.inputs_BT))
        log_step(self.loggers, {"loss": shown}, self.global_step)
        return loss * (batch.share * self.trainer.world_size)

    def on_validation_epoch_start(self) -> None:
        self.trie = self.trie.to(self.device)

    def on_test_epoch_start(self) -> None:
        self.trie = self.trie.to(self.device)

    def predict_users(self, batch: PackedUsers) -> ListedUsers | None:
        """Two searches, one of them without seen items; both lists are cut to `LIST_LENGTH`."""
        if not batch.counted:
            return None
        view = view_of(self.model, batch.sources)
        masked_BK, unmasked_BK = (
            generate_items(self.model, batch.sources, self.trie, seen, num_beams=self.beams, view=view)[0]
            for seen in (batch.seen, None)
        )
        return ListedUsers(batch.users, unmasked_BK[:, :LIST_LENGTH], masked_BK[:, :LIST_LENGTH])
