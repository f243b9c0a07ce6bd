"""Trains, selects and tests a sequential recommender; the backbone and the fusion stages differ only in its table.

Shapes: I items (0 is padding).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import torch
from hydra.utils import get_class
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor

from tslrec.config import MODEL_KEYS, TrainingConfig
from tslrec.data.datamodule import SequenceDataModule
from tslrec.data.interactions import Interactions
from tslrec.evaluation.metrics import needs_lists
from tslrec.evaluation.user_ranks import save_ranks
from tslrec.models.backbones.base import Backbone, CausalBackbone
from tslrec.models.item_embedding import ItemEmbedding
from tslrec.stages.context import StageContext
from tslrec.stages.outputs import WEIGHTS
from tslrec.training.best_weights import selection_callbacks
from tslrec.training.next_item import NextItemModule
from tslrec.training.resuming import fit
from tslrec.training.sampled_softmax import NegativeSampler

Module = TypeVar("Module", bound=NextItemModule)


def build_backbone(
    model: Mapping[str, Any], item_embedding: ItemEmbedding, *, num_users: int, max_len: int
) -> Backbone:
    """The backbone that a `model` section describes.

    Args:
        model: the section: `_target_` and the backbone's own settings.
        item_embedding: what the backbone is built around.
        num_users: U.
        max_len: the longest input, L, in items.
    """
    settings = {key: value for key, value in model.items() if key not in MODEL_KEYS and key != "_target_"}
    backbone = get_class(model["_target_"])(item_embedding, num_users, max_len, **settings)
    assert isinstance(backbone, Backbone)
    return backbone


def negative_sampler(config: TrainingConfig, interactions: Interactions) -> NegativeSampler | None:
    """Draws the negatives of a sampled softmax by training count; None where the softmax is over all items."""
    if config.num_negatives is None:
        return None
    return NegativeSampler(
        training_counts(interactions),
        num_negatives=config.num_negatives,
        exponent=config.negative_exponent,
    )


def training_counts(interactions: Interactions) -> NDArray[np.int64]:
    """How often each item occurs in the training part, `[I + 1]`."""
    return np.bincount(interactions.items[interactions.is_training_N], minlength=interactions.num_items + 1)


def counts_for(metrics: Sequence[str], interactions: Interactions) -> Tensor | None:
    """The training counts, int64 `[I + 1]`, where one of the metrics needs them; else None."""
    if not any(needs_lists(name) for name in metrics):
        return None
    return torch.from_numpy(training_counts(interactions))


def train_recommender(
    context: StageContext, item_embedding: ItemEmbedding, module_class: type[Module]
) -> tuple[Module, dict[str, Any]]:
    """Trains with early stopping, tests the best weights once; writes `weights.safetensors` and `ranks.safetensors`.

    Args:
        context: of the stage.
        item_embedding: the item table that the backbone is built around.
        module_class: the stage's LightningModule.

    Returns:
        The module with its best weights, and the stage's metrics: those of `validation/…` and `test/…` under both
        ranking protocols, `validation/users` and `test/users` (users evaluated), `best_epoch` (from 0) and `epochs`
        (run in all).

    Raises:
        UserError: if a loss or a gradient is not finite, or a checkpoint cannot be read.
        StoppedError: if a signal asked the run to end; the training can be resumed.
    """
    config = context.config.training
    backbone = build_backbone(
        context.config.model,
        item_embedding,
        num_users=context.interactions.num_users,
        max_len=config.max_len,
    )
    module = module_class(
        backbone,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        sampler=negative_sampler(config, context.interactions),
        metrics=context.config.metrics,
        training_counts_I=counts_for(context.config.metrics, context.interactions),
    )
    data = SequenceDataModule(
        context.interactions,
        max_len=config.max_len,
        batch_size=config.batch_size,
        eval_batch_size=config.eval_batch_size,
        all_positions=config.all_positions and backbone.causal,
        fixed_window=backbone.fixed_window,
        packed=isinstance(backbone, CausalBackbone) and backbone.packs,
        seed=context.seed,
        steps_per_epoch=config.steps_per_epoch,
        validation_users=config.validation_users,
        test_users=config.test_users,
    )
    best, callbacks = selection_callbacks(config.selection, config.patience)
    trainer = context.make_trainer(max_epochs=config.max_epochs, callbacks=callbacks)
    fit(trainer, module, data)
    best.restore(module)
    tested = trainer.test(module, data, verbose=False)[0]
    ranks = module.test_ranks.gather(context.interactions.num_users, module.device)
    if trainer.is_global_zero:
        save_ranks(ranks, context.folder)
        save_file(
            {name: value.contiguous() for name, value in module.backbone.state_dict().items()},
            context.folder / WEIGHTS,
        )
    metrics: dict[str, Any] = {
        **best.metrics,
        "validation/users": len(data.validated),
        **tested,
        "test/users": len(data.tested),
        "best_epoch": best.epoch,
        "epochs": trainer.current_epoch,
    }
    return module, metrics
