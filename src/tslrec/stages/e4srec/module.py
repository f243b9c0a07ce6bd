"""The training loop and the evaluation of E4SRec (Li et al. 2023).

Shapes: B examples, H hidden size of the language model, I items, S (user, item) pairs of histories.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor

from tslrec.evaluation.chosen_metrics import RankingMetrics
from tslrec.evaluation.hooks import EvaluatedUsers, RankingHooks, ScoredUsers
from tslrec.llm.finetuning import LLMFinetuningModule
from tslrec.llm.prompted import KeysAndValues
from tslrec.settings.metrics import DEFAULT_METRICS
from tslrec.stages.e4srec.data import InstanceBatch, RankedBatch
from tslrec.stages.e4srec.model import NextItemLLM
from tslrec.training.csv_log import log_step
from tslrec.training.losses import softmax_loss


class E4SRecModule(RankingHooks, LLMFinetuningModule[NextItemLLM]):
    """Cross-entropy over all items at each position of a history, and exact full ranking.

    Args:
        make_model: see `LLMFinetuningModule`.
        num_steps: optimizer steps of the whole training.
        learning_rate: AdamW's peak, reached after the warm-up.
        weight_decay: AdamW's.
        warmup_steps: optimizer steps during which the learning rate rises linearly.
        metrics: see `RankingHooks.prepare_ranking`.
        training_counts_I: see `RankingHooks.prepare_ranking`.
    """

    def __init__(
        self,
        make_model: Callable[[], NextItemLLM],
        *,
        num_steps: int,
        learning_rate: float,
        weight_decay: float,
        warmup_steps: int,
        metrics: Sequence[str] = DEFAULT_METRICS,
        training_counts_I: Tensor | None = None,
    ) -> None:
        super().__init__(
            make_model,
            num_steps=num_steps,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            warmup=min(1.0, warmup_steps / num_steps),
        )
        self.save_hyperparameters(ignore=["make_model", "metrics", "training_counts_I"])
        self.prepare_ranking(metrics, training_counts_I)
        self.prefix: KeysAndValues | None = None

    def training_step(self, batch: InstanceBatch, batch_idx: int) -> Tensor:
        """One optimizer step over this process's share of its instances."""
        total = self.loss(self.model(batch.examples), batch.targets_B) * batch.counted
        loss = total.detach().double() / len(batch.targets_B)
        self.log("loss", loss, logger=False, batch_size=len(batch.targets_B))
        log_step(self.loggers, {"loss": loss}, self.global_step)
        return total * self.trainer.world_size / batch.num_targets

    def loss(self, user_BH: Tensor, targets_B: Tensor) -> Tensor:
        return softmax_loss(user_BH, self.model.item_table(), targets_B)

    def on_validation_epoch_start(self) -> None:
        self.run_prefix()

    def on_test_epoch_start(self) -> None:
        self.run_prefix()

    def run_prefix(self) -> None:
        """Runs the instruction once for all users of an evaluation, whose weights do not change."""
        self.prefix = self.model.run_prefix() if self.model.shared_prefix else None

    def predict_users(self, batch: RankedBatch) -> ScoredUsers | None:
        """One pass of the language model per user, also for users that do not count (see `RankedBatch.counted`)."""
        user_BH = self.model(batch.examples, self.prefix)
        if not batch.counted:
            return None
        users = EvaluatedUsers(batch.users_B, batch.targets_B, batch.seen_rows_S, batch.seen_items_S)
        return ScoredUsers(users, user_BH, self.model.item_table())

    def log_ranking(self, part: str, metrics: RankingMetrics) -> None:
        self.prefix = None
        super().log_ranking(part, metrics)
