"""Trains, selects and tests a sequential recommender; the backbone and the fusion stages differ only in its table."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import numpy as np
from hydra.utils import get_class
from safetensors.torch import save_file

from tslrec.backbones.base import Backbone, CausalBackbone
from tslrec.check import MODEL_KEYS
from tslrec.config import TrainingConfig
from tslrec.interactions import Interactions
from tslrec.item_embedding import ItemEmbedding
from tslrec.resuming import fit
from tslrec.sampled_softmax import NegativeSampler
from tslrec.sequences import SequenceDataModule
from tslrec.stages.context import StageContext
from tslrec.stages.next_item import NextItemModule
from tslrec.stages.selection import selection_callbacks
from tslrec.user_ranks import save_ranks

Module = TypeVar("Module", bound=NextItemModule)


def build_backbone(
    model: Mapping[str, Any], item_embedding: ItemEmbedding, *, num_users: int, max_len: int
) -> Backbone:
    """The backbone that a `model` section names, around an item embedding."""
    numbers = {key: value for key, value in model.items() if key not in MODEL_KEYS and key != "_target_"}
    backbone = get_class(model["_target_"])(item_embedding, num_users, max_len, **numbers)
    assert isinstance(backbone, Backbone)
    return backbone


def negative_sampler(
    config: TrainingConfig, interactions: Interactions, item_embedding: ItemEmbedding
) -> NegativeSampler | None:
    """What draws the negatives of a sampled softmax; None where the softmax is over all items."""
    if config.num_negatives is None:
        return None
    return NegativeSampler(
        np.bincount(interactions.items[interactions.trained], minlength=interactions.num_items + 1),
        num_negatives=config.num_negatives,
        exponent=config.negative_exponent,
        padding_row=item_embedding.padding_row,
    )


def train_recommender(
    context: StageContext, item_embedding: ItemEmbedding, module_class: Callable[..., Module]
) -> tuple[Module, dict[str, Any]]:
    """Trains with early stopping, tests the best weights once; writes `weights.safetensors` and `ranks.safetensors`.

    Returns:
        The module with its best weights, and the stage's metrics: `validation/…` and `test/…` of both ranking
        protocols, the users that they are of, the best epoch and how many were run.
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
        sampler=negative_sampler(config, context.interactions, item_embedding),
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
            context.folder / "weights.safetensors",
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
