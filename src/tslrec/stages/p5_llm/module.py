"""The training loop and the evaluation of P5 (Geng et al. 2022) on a decoder-only language model.

Shapes: B texts or users, K items of a list, T tokens of an answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from torch import Tensor

from tslrec.evaluation.hooks import ListedUsers, RankingHooks
from tslrec.evaluation.protocols import LIST_LENGTH
from tslrec.llm.encoder_decoder.optimizing import linear_rate_at
from tslrec.llm.encoder_decoder.trie import Trie
from tslrec.llm.extended_text import ExtendedTextLLM
from tslrec.llm.finetuning import LLMFinetuningModule
from tslrec.llm.prompt_beams import generate_after, read_prompts
from tslrec.llm.prompt_packing import PackedPrompts
from tslrec.settings.metrics import DEFAULT_METRICS
from tslrec.stages.p5_llm.packed import AnsweredTexts, AskedPrompts
from tslrec.training.accumulation import summed
from tslrec.training.csv_log import log_step
from tslrec.training.deepspeed_zero import ZeroStrategy


class P5LLMModule(RankingHooks, LLMFinetuningModule[ExtendedTextLLM]):
    """Cross-entropy of the answers' tokens alone; lists of items by beam search over the texts of all items.

    Args:
        make_model: see `LLMFinetuningModule`.
        trie: of all items.
        num_steps: optimizer steps of the whole training.
        learning_rate: AdamW's peak, reached after the warm-up; a linear fall to zero follows.
        weight_decay: AdamW's.
        warmup: share of all steps during which the learning rate rises linearly.
        beams: of a search.
        tokens_at_once: tokens of a step in one pass; a larger step is several passes, unless the strategy is ZeRO.
        metrics: see `RankingHooks.prepare_ranking`.
        training_counts_I: see `RankingHooks.prepare_ranking`.
    """

    def __init__(
        self,
        make_model: Callable[[], ExtendedTextLLM],
        trie: Trie,
        *,
        num_steps: int,
        learning_rate: float,
        weight_decay: float,
        warmup: float,
        beams: int,
        tokens_at_once: int,
        metrics: Sequence[str] = DEFAULT_METRICS,
        training_counts_I: Tensor | None = None,
    ) -> None:
        super().__init__(
            make_model, num_steps=num_steps, learning_rate=learning_rate, weight_decay=weight_decay, warmup=warmup
        )
        self.save_hyperparameters(ignore=["make_model", "trie", "metrics", "training_counts_I"])
        self.trie = trie
        self.beams = beams
        self.tokens_at_once = tokens_at_once
        self.prepare_ranking(metrics, training_counts_I, list_length=LIST_LENGTH)

    def rate(self, step: int) -> float:
        """Linear warm-up, then a straight line to zero, as P5's other form has it."""
        return linear_rate_at(step, self.num_steps, self.warmup)

    def training_step(self, batch: AnsweredTexts, batch_idx: int) -> Tensor:
        """One optimizer step over this process's share of its texts; the loss is the mean over all their tokens."""
        total = self.summed_loss(batch) * batch.counted
        share = total * self.trainer.world_size / batch.num_labels
        loss = share.detach().double()
        self.log("loss", loss, logger=False, batch_size=len(batch.labels_BT))
        log_step(self.loggers, {"loss": loss}, self.global_step)
        return share

    def summed_loss(self, batch: AnsweredTexts) -> Tensor:
        """Cross-entropy summed over the tokens of the answers; the activations are of one pass at a time."""
        # ZeRO averages the gradients in the backward pass of each.
        if isinstance(self.trainer.strategy, ZeroStrategy):
            return self.loss(batch.prompts, batch.labels_BT)
        groups = batch.prompts.groups(self.tokens_at_once)
        if len(groups) == 1:
            return self.loss(batch.prompts, batch.labels_BT)
        trained = self.model.trainable_parameters()
        losses = [partial(self.loss, prompts, batch.labels_BT[places]) for prompts, places in groups]
        return summed(losses, trained, trained)

    def loss(self, prompts: PackedPrompts, labels_BT: Tensor) -> Tensor:
        """Cross-entropy summed over the tokens of the answers of some texts."""
        return self.model.loss(self.model.end_states(prompts, count=labels_BT.shape[1]), labels_BT)

    def on_validation_epoch_start(self) -> None:
        self.trie = self.trie.to(self.device)

    def on_test_epoch_start(self) -> None:
        self.trie = self.trie.to(self.device)

    def predict_users(self, batch: AskedPrompts) -> ListedUsers | None:
        """Two searches, one of them without seen items; both lists are cut to `LIST_LENGTH`."""
        if not batch.counted:
            return None
        prompts = read_prompts(self.model, batch.tokens_BS, batch.lengths_B)
        masked_BK, unmasked_BK = (
            generate_after(self.model, prompts, self.trie, seen, num_beams=self.beams)[0] for seen in (batch.seen, None)
        )
        return ListedUsers(batch.users, unmasked_BK[:, :LIST_LENGTH], masked_BK[:, :LIST_LENGTH])
