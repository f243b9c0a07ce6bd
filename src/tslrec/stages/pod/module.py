"""The training loop and the evaluation of POD (Li et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tslrec.evaluation.hooks import ListedUsers, RankingHooks
from tslrec.evaluation.protocols import LIST_LENGTH
from tslrec.llm.encoder_decoder.model import EncoderDecoder
from tslrec.llm.encoder_decoder.optimizing import adamw
from tslrec.settings.metrics import DEFAULT_METRICS
from tslrec.stages.pod.lists import Lists
from tslrec.stages.pod.packed import PackedSamples, PackedUsers
from tslrec.stages.pod.templates import NUM_TASKS, SEQUENTIAL, TOP_N
from tslrec.system.processes import sum_over_processes
from tslrec.training.csv_log import log_step

LOSS = "validation/loss"
"""The metric that selects the weights: the mean of both tasks' mean losses; lower is better."""

TASK_NAMES = {SEQUENTIAL: "sequential", TOP_N: "top_n"}
"""The tasks' names in metrics."""

EPSILON = 1e-8
"""Added by AdamW to the root of the second moment: torch's own, as in the public code (lileipisces/POD fd31697)."""


class PODModule(RankingHooks):
    """Cross-entropy of the item's number in training and validation; generated lists in the test.

    Args:
        model: the language model.
        lists: how it gives users their lists.
        learning_rate: AdamW's, constant.
        weight_decay: AdamW's.
        metrics: see `RankingHooks.prepare_ranking`.
        training_counts_I: see `RankingHooks.prepare_ranking`.

    Attributes:
        validation_sums: by task, the weighted sum of the losses and that of the weights in the current validation.
    """

    def __init__(
        self,
        model: EncoderDecoder,
        lists: Lists,
        *,
        learning_rate: float,
        weight_decay: float,
        metrics: Sequence[str] = DEFAULT_METRICS,
        training_counts_I: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.model = model
        self.lists = lists
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.prepare_ranking(metrics, training_counts_I, list_length=LIST_LENGTH)
        self.validation_sums = torch.zeros(NUM_TASKS, 2, dtype=torch.float64)

    def training_step(self, batch: PackedSamples, batch_idx: int) -> Tensor:
        """The loss of this process's share of an optimizer step."""
        loss: Tensor = self.model(batch.batch)
        self.log("loss", loss.detach(), logger=False, batch_size=batch.samples)
        log_step(self.loggers, {"loss": loss.detach()}, self.global_step)
        # The strategy averages the gradients of the processes, whose shares are unequal.
        return loss * (batch.share * self.trainer.world_size)

    def on_validation_epoch_start(self) -> None:
        self.validation_sums = torch.zeros(NUM_TASKS, 2, dtype=torch.float64, device=self.device)

    def validation_step(self, batch: PackedSamples, batch_idx: int) -> None:
        """Adds the loss of a batch to its task's."""
        self.validation_sums[batch.task, 0] += self.model(batch.batch).double() * batch.weight
        self.validation_sums[batch.task, 1] += batch.weight

    def on_validation_epoch_end(self) -> None:
        """Logs the mean loss of each task, and the mean of both."""
        sums = sum_over_processes(self.validation_sums, self.device)
        losses = {name: float(sums[task, 0] / sums[task, 1]) for task, name in TASK_NAMES.items()}
        mean = sum(losses.values()) / len(losses)
        self.log_dict({LOSS: mean, **{f"validation/{name}_loss": loss for name, loss in losses.items()}})

    def predict_users(self, batch: PackedUsers | None) -> ListedUsers | None:
        """Generates the lists of a batch; None for the empty batch of a process without users of its own."""
        return None if batch is None else self.lists.of(self.model, batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return adamw(self.model, learning_rate=self.learning_rate, epsilon=EPSILON, weight_decay=self.weight_decay)
