"""The training loop and the evaluation of LlamaRec's ranker (Yue et al. 2023).

Shapes: B examples or users, A tokens of an answer, K items that are reranked, X items of a list, M prompts of a batch,
P ranking protocols, H hidden size of the language model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor

from tslrec.evaluation.chosen_metrics import RankingMetrics
from tslrec.evaluation.hooks import EvaluatedUsers, RankedUsers, RankingHooks
from tslrec.evaluation.reranking import rerank, reranked_ranks
from tslrec.llm.finetuning import LLMFinetuningModule
from tslrec.llm.prompt_packing import PackedPrompts
from tslrec.llm.shared_prefix import KeysAndValues
from tslrec.llm.text import TextLLM
from tslrec.settings.metrics import DEFAULT_METRICS
from tslrec.stages.llamarec.data import AnsweredBatch, ListsBatch
from tslrec.training.accumulation import summed
from tslrec.training.csv_log import log_step
from tslrec.training.deepspeed_zero import ZeroStrategy


class RankerModule(RankingHooks, LLMFinetuningModule[TextLLM]):
    """Cross-entropy of the answer's letter and end over the whole vocabulary; lists reranked by the letters' logits.

    Args:
        make_model: see `LLMFinetuningModule`.
        letters_K: int64, the token of each candidate's letter.
        num_steps: optimizer steps of the whole training.
        learning_rate: AdamW's peak, reached after the warm-up.
        weight_decay: AdamW's.
        warmup_steps: optimizer steps during which the learning rate rises linearly.
        tokens_at_once: tokens of a step in one pass; a larger step is several passes, unless the strategy is ZeRO.
        metrics: see `RankingHooks.prepare_ranking`.
        training_counts_I: see `RankingHooks.prepare_ranking`.
    """

    letters_K: Tensor

    def __init__(
        self,
        make_model: Callable[[], TextLLM],
        letters_K: Tensor,
        *,
        num_steps: int,
        learning_rate: float,
        weight_decay: float,
        warmup_steps: int,
        tokens_at_once: int,
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
        self.save_hyperparameters(ignore=["make_model", "letters_K", "metrics", "training_counts_I"])
        self.tokens_at_once = tokens_at_once
        self.register_buffer("letters_K", letters_K, persistent=False)
        self.prepare_ranking(metrics, training_counts_I)
        self.prefix: KeysAndValues | None = None

    def rate(self, step: int) -> float:
        """Linear warm-up, then a straight line to zero (the default schedule of transformers' Trainer)."""
        rising = max(1, round(self.warmup * self.num_steps))
        if step < rising:
            return (step + 1) / rising
        return max(0.0, (self.num_steps - step) / max(1, self.num_steps - rising))

    def training_step(self, batch: AnsweredBatch, batch_idx: int) -> Tensor:
        """One optimizer step over this process's share of its instances."""
        total = self.summed_loss(batch) * batch.counted
        loss = total.detach().double() / batch.labels_BA.numel()
        self.log("loss", loss, logger=False, batch_size=len(batch.labels_BA))
        log_step(self.loggers, {"loss": loss}, self.global_step)
        return total * self.trainer.world_size / batch.num_labels

    def summed_loss(self, batch: AnsweredBatch) -> Tensor:
        """Cross-entropy summed over the tokens of the answers; the activations are of one pass at a time."""
        # ZeRO-3 gathers weights collectively, and processes could have different numbers of passes.
        if isinstance(self.trainer.strategy, ZeroStrategy):
            return self.loss(batch.prompts, batch.labels_BA)
        groups = batch.prompts.groups(self.tokens_at_once)
        if len(groups) == 1:
            return self.loss(batch.prompts, batch.labels_BA)
        trained = self.model.trainable_parameters()
        losses = [partial(self.loss, prompts, batch.labels_BA[places]) for prompts, places in groups]
        return summed(losses, trained, trained)

    def loss(self, prompts: PackedPrompts, labels_BA: Tensor) -> Tensor:
        """Cross-entropy summed over the tokens of the answers of some prompts."""
        # The states at the last prompt token and at the letter; without an end token, the first of them alone.
        states_BAH = self.model.end_states(prompts, count=2)[:, : labels_BA.shape[1]]
        return self.model.loss(states_BAH, labels_BA)

    def on_validation_epoch_start(self) -> None:
        self.run_prefix()

    def on_test_epoch_start(self) -> None:
        self.run_prefix()

    def run_prefix(self) -> None:
        """Runs the instruction once for all users of an evaluation, whose weights do not change."""
        self.prefix = self.model.run_prefix() if self.model.shared_prefix else None

    def predict_users(self, batch: ListsBatch) -> RankedUsers | None:
        """One pass of the language model per list that must be reranked, also for users that do not count."""
        scores_MK = None if batch.prompts is None else self.letter_scores(batch.prompts)
        if not batch.counted or len(batch.users_B) == 0:
            return None
        ranks, lists = [], []
        for protocol, prompts_B in enumerate(batch.prompts_PB):
            list_BX = batch.lists_PBX[protocol]
            if scores_MK is not None:
                # Equal scores leave a list as it is.
                scores_BK = scores_MK[prompts_B.clamp(min=0)].masked_fill((prompts_B < 0)[:, None], 0.0)
                list_BX = rerank(list_BX, scores_BK)
            ranks.append(reranked_ranks(list_BX, len(self.letters_K), batch.targets_B, batch.ranks_PB[protocol]))
            lists.append(list_BX)
        users = EvaluatedUsers(batch.users_B, batch.targets_B, batch.seen_rows_S, batch.seen_items_S)
        return RankedUsers(users, ranks[0], ranks[1], (lists[0], lists[1]))

    def letter_scores(self, prompts: PackedPrompts) -> Tensor:
        """The logit of each candidate's letter after each prompt, float32 `[M, K]`."""
        return self.model.token_scores(self.model.end_states(prompts, self.prefix)[:, 0], self.letters_K)

    def log_ranking(self, part: str, metrics: RankingMetrics) -> None:
        self.prefix = None
        super().log_ranking(part, metrics)
