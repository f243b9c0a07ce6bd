"""The rival E4SRec (Li et al. 2023): the language model itself recommends, trained on one example per interaction.

On the machinery of the preference SFT, so that the comparison of their costs (the paper's Figure 3) is of the methods.

Shapes: B examples, H hidden size of the language model, I items (row 0 is padding).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from tslrec.llm.adapter_files import e4srec_packer, new_e4srec, read_item_embeddings, save_trained
from tslrec.llm.instances import InstanceBatch, InstanceDataModule, RankedBatch
from tslrec.llm.next_item_model import NextItemLLM
from tslrec.llm.prompted import KeysAndValues
from tslrec.llm.source import resolve
from tslrec.losses import softmax_loss
from tslrec.metrics import RankingMetrics, target_ranks
from tslrec.resuming import fit
from tslrec.stages.adapted import AdaptedLLMModule
from tslrec.stages.context import StageContext
from tslrec.stages.selection import selection_callbacks
from tslrec.user_ranks import UserRanks, save_ranks
from tslrec.zero import whole, whole_size

VERSION = 3
TOGETHER = True


class E4SRecModule(AdaptedLLMModule[NextItemLLM]):
    """Cross-entropy over all items at each position of a history, and exact full ranking.

    Args:
        make_model: see `AdaptedLLMModule`, as the others but one.
        num_steps: optimizer steps of the whole training.
        learning_rate: at its peak, after the warm-up.
        weight_decay: AdamW's.
        warmup_steps: during which it rises.
        tell: see `AdaptedLLMModule`.
    """

    def __init__(
        self,
        make_model: Callable[[], NextItemLLM],
        *,
        num_steps: int,
        learning_rate: float,
        weight_decay: float,
        warmup_steps: int,
        tell: Callable[[str], None] = print,
    ) -> None:
        super().__init__(
            make_model,
            num_steps=num_steps,
            learning_rate=learning_rate,
            weight_decay=weight_decay,
            warmup=min(1.0, warmup_steps / num_steps),
            tell=tell,
        )
        self.save_hyperparameters(ignore=["make_model", "tell"])
        self.validation_metrics = RankingMetrics()
        self.test_metrics = RankingMetrics()
        self.test_ranks = UserRanks()
        self.prefix: KeysAndValues | None = None

    def training_step(self, batch: InstanceBatch, batch_idx: int) -> Tensor:
        """One optimizer step over this process's share of its instances."""
        total = self.loss(self.model(batch.examples), batch.targets_B) * batch.counted
        loss = float(total.detach()) / len(batch.targets_B)
        self.log("loss", loss, prog_bar=True, logger=False, batch_size=len(batch.targets_B))
        for logger in self.loggers:
            logger.log_metrics({"loss": loss}, self.global_step)
        return total * self.trainer.world_size / batch.num_targets

    def loss(self, user_BH: Tensor, targets_B: Tensor) -> Tensor:
        return softmax_loss(user_BH, self.model.item_head.weight, targets_B)

    def on_validation_epoch_start(self) -> None:
        self.run_prefix()

    def on_test_epoch_start(self) -> None:
        self.run_prefix()

    def run_prefix(self) -> None:
        """Once for all users of an evaluation."""
        self.prefix = self.model.run_prefix() if self.model.shared_prefix else None

    def validation_step(self, batch: RankedBatch, batch_idx: int) -> None:
        self.rank(batch, self.validation_metrics)

    def test_step(self, batch: RankedBatch, batch_idx: int) -> None:
        self.rank(batch, self.test_metrics, self.test_ranks)

    def on_validation_epoch_end(self) -> None:
        self.log_ranking("validation", self.validation_metrics)

    def on_test_epoch_end(self) -> None:
        self.log_ranking("test", self.test_metrics)

    def rank(self, batch: RankedBatch, metrics: RankingMetrics, kept: UserRanks | None = None) -> None:
        """Ranks each user's target among all items, under both protocols: one pass of the language model a user."""
        user_BH = self.model(batch.examples, self.prefix)
        if not batch.counted:
            return
        table_IH = self.model.item_head.weight
        masked_B, unmasked_B = target_ranks(user_BH, table_IH, batch.targets_B, batch.seen_rows_S, batch.seen_items_S)
        metrics.update(masked_B, unmasked_B)
        if kept is not None:
            kept.add(batch.users_B, masked_B, unmasked_B)

    def log_ranking(self, part: str, metrics: RankingMetrics) -> None:
        self.prefix = None
        self.log_dict({f"{part}/{name}": float(value) for name, value in metrics.compute().items()})
        metrics.reset()


def run(context: StageContext) -> dict[str, Any]:
    """Writes `adapter/` (PEFT's own format), `heads.safetensors` and `ranks.safetensors`.

    Returns:
        `validation/…` and `test/…` of both ranking protocols, the best epoch and how many were run, trainable
        parameters.
    """
    config, numbers = context.config, context.config.e4srec
    source = resolve(config.llm, Path(config.cache))
    item_embeddings_ID = read_item_embeddings(context.inputs["backbone"])
    data = InstanceDataModule(
        context.interactions,
        e4srec_packer(config.llm, source),
        max_len=config.training.max_len,
        batch_size=numbers.batch_size,
        eval_batch_size=numbers.eval_batch_size,
        seed=context.seed,
    )
    module = E4SRecModule(
        lambda: new_e4srec(config.llm, numbers.lora, source, item_embeddings_ID),
        num_steps=len(data.batches) * numbers.max_epochs,
        learning_rate=numbers.learning_rate,
        weight_decay=numbers.weight_decay,
        warmup_steps=numbers.warmup_steps,
        tell=lambda line: context.tell(f"e4srec: {line}"),
    )
    best, callbacks = selection_callbacks(config.training.selection, patience=numbers.max_epochs)
    trainer = context.make_trainer(
        max_epochs=numbers.max_epochs, callbacks=callbacks, llm=True, gradient_clip=numbers.gradient_clip
    )
    fit(trainer, module, data)
    best.restore(module)
    tested = trainer.test(module, data, verbose=False)[0]
    model = module.model
    ranks = module.test_ranks.gather(context.interactions.num_users, module.device)
    with whole(model.trainable_parameters()):
        if trainer.is_global_zero:
            save_ranks(ranks, context.folder)
            save_trained(model, context.folder, source)
    return {
        **best.metrics,
        **tested,
        "best_epoch": best.epoch,
        "epochs": trainer.current_epoch,
        "trainable_parameters": whole_size(model.trainable_parameters()),
    }
