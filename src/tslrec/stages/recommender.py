"""Trains, selects and tests a sequential recommender; the backbone and the fusion stages differ only in its table.

Shapes: I items (0 is padding), T tested users.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import lightning
import torch
from safetensors.torch import save_file
from torch import Tensor

from tslrec.data.datamodule import SequenceDataModule
from tslrec.data.interactions import TEST, Interactions
from tslrec.evaluation.chosen_metrics import needs_lists
from tslrec.evaluation.user_groups import metrics_of
from tslrec.evaluation.user_ranks import UserRanks, save_ranks
from tslrec.models.backbones.base import Backbone, PositionBackbone
from tslrec.models.item_embedding import ItemEmbedding
from tslrec.settings.trainer import TrainerConfig
from tslrec.settings.training import TrainingConfig
from tslrec.stages.building import build_backbone
from tslrec.stages.carrying import Carried, save_cold_rows
from tslrec.stages.context import StageContext
from tslrec.stages.outputs import WEIGHTS
from tslrec.stages.target_rules import check_targets
from tslrec.training.best_weights import selection_callbacks
from tslrec.training.next_item import NextItemModule
from tslrec.training.resuming import fit
from tslrec.training.sampled_softmax import NegativeSampler
from tslrec.training.soft_targets import SoftTargets

log = logging.getLogger(__name__)

Module = TypeVar("Module", bound=NextItemModule)

STEPS_PER_BATCH = 16
"""Optimizer steps between two visits of Lightning's loop and callbacks, where CUDA graphs make a step shorter than
such a visit."""


FULL_PRECISION = ("32-true", "32")
"""The names that Lightning has for fp32."""


def negative_sampler(config: TrainingConfig, interactions: Interactions) -> NegativeSampler | None:
    """Draws the negatives of a sampled softmax by training count; None where the softmax is over all items."""
    if config.num_negatives is None:
        return None
    return NegativeSampler(
        interactions.training_counts,
        num_negatives=config.num_negatives,
        exponent=config.negative_exponent,
    )


def steps_per_batch(trainer: TrainerConfig, training: TrainingConfig) -> int:
    """Optimizer steps of one batch: several where steps can be CUDA graphs.

    That is on a single CUDA device, in fp32 (autocast keeps casted weights between steps), with the softmax over all
    items (negatives are drawn on the host). Where one setting stands in the way, the log names it.
    """
    if not trainer.step_graphs or trainer.accelerator not in ("gpu", "cuda") or not torch.cuda.is_available():
        return 1
    needed = {
        f"trainer.devices={trainer.devices}, with graphs where it is 1": trainer.devices in (1, "1"),
        f"trainer.num_nodes={trainer.num_nodes}": trainer.num_nodes == 1,
        f"trainer.strategy={trainer.strategy}, with graphs where it is auto": trainer.strategy == "auto",
        f"trainer.precision={trainer.precision}": str(trainer.precision) in FULL_PRECISION,
        "training.num_negatives": training.num_negatives is None,
    }
    for setting, possible in needed.items():
        if not possible:
            log.info(f"no CUDA graphs of steps: {setting}")
            return 1
    return STEPS_PER_BATCH


def steps_for(backbone: Backbone, trainer: TrainerConfig, training: TrainingConfig, *, taught: bool = False) -> int:
    """`steps_per_batch` of this backbone: one, which the log says, where the host draws a part of each step.

    Args:
        backbone: what is trained.
        trainer: the section.
        training: the section.
        taught: whether there are soft targets, whose places the steps of a graph do not know.
    """
    possible = steps_per_batch(trainer, training)
    if possible > 1 and taught:
        log.info("no CUDA graphs of steps: each step looks up its soft targets")
        return 1
    drawn = "masks" if backbone.masking is not None else "items to compare with" if backbone.pairwise else None
    if possible == 1 or drawn is None:
        return possible
    log.info(f"no CUDA graphs of steps: the host draws the {drawn} of {type(backbone).__name__} for each step")
    return 1


def counts_for(metrics: Sequence[str], interactions: Interactions) -> Tensor | None:
    """The training counts, int64 `[I + 1]`, where one of the metrics needs them; else None."""
    if not any(needs_lists(name) for name in metrics):
        return None
    return torch.from_numpy(interactions.training_counts)


def train_recommender(
    context: StageContext,
    item_embedding: ItemEmbedding,
    module_class: type[Module],
    carried: Carried | None = None,
    soft_targets: SoftTargets | None = None,
) -> tuple[Module, dict[str, Any]]:
    """Trains with early stopping, tests the best weights once; writes `weights.safetensors` and `ranks.safetensors`.

    Args:
        context: of the stage.
        item_embedding: the item table that the backbone is built around.
        module_class: the stage's LightningModule.
        carried: the weights that training begins with; None: freshly drawn ones.
        soft_targets: what a teacher gives each target; None: there is no teacher.

    Returns:
        The module with its best weights, and the stage's metrics: those of `validation/…` and `test/…` under both
        ranking protocols, `validation/users` and `test/users` (users evaluated), `best_epoch` (from 0) and `epochs`
        (run in all). If nothing is left to train, `epochs` is 0 and there is no best one. Of a training that continues
        also `Carried.facts`, the test of the earlier weights before they were trained on (`before/…`), and the test by
        warm and cold targets (`slice_metrics`).

    Raises:
        UserError: if a loss or a gradient is not finite, a checkpoint cannot be read, the earlier weights do not fit,
            or the backbone cannot have such targets.
        StoppedError: if a signal asked the run to end; the training can be resumed.
    """
    config = context.config.training
    backbone = build_backbone(
        context.config.model,
        item_embedding,
        num_users=context.interactions.num_users,
        max_len=config.max_len,
    )
    taught = soft_targets is not None
    check_targets(
        config,
        str(context.config.model["name"]),
        taught=taught,
        pairwise=backbone.pairwise,
        masked=backbone.masking is not None,
    )
    if carried is not None:
        carried.begin(backbone)
    grouped = steps_for(backbone, context.config.trainer, config, taught=taught)
    module = module_class(
        backbone,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        sampler=negative_sampler(config, context.interactions),
        metrics=context.config.metrics,
        training_counts_I=counts_for(context.config.metrics, context.interactions),
        steps_per_batch=grouped,
        label_smoothing=config.label_smoothing,
        soft_targets=soft_targets,
    )
    data = SequenceDataModule(
        context.interactions,
        max_len=config.max_len,
        batch_size=config.batch_size,
        eval_batch_size=config.eval_batch_size,
        all_positions=config.all_positions and backbone.causal,
        fixed_window=backbone.fixed_window,
        packed=isinstance(backbone, PositionBackbone) and backbone.packs,
        seed=context.seed,
        steps_per_epoch=config.steps_per_epoch,
        validation_users=config.validation_users,
        test_users=config.test_users,
        steps_per_batch=grouped,
        masking=backbone.masking,
        with_places=taught,
    )
    best, callbacks = selection_callbacks(config.selection, config.patience)
    trainer = context.make_trainer(max_epochs=config.max_epochs, callbacks=callbacks)
    before = {} if carried is None or carried.keeps_items else metrics_before(trainer, module, data)
    if any(parameter.requires_grad for parameter in module.parameters()):
        fit(trainer, module, data)
        best.restore(module)
    else:
        trainer.validate(module, data, verbose=False)
    cold_rows: dict[str, Tensor] = {}
    if carried is not None:
        carried.complete(module.backbone)
    weights = {name: value.contiguous() for name, value in module.backbone.state_dict().items()}
    if carried is not None:
        cold_rows = carried.fix_cold_rows(module.backbone)
    tested = trainer.test(module, data, verbose=False)[0]
    ranks = module.test_ranks.gather(context.interactions.num_users, module.device)
    if trainer.is_global_zero:
        save_ranks(ranks, context.folder)
        save_file(weights, context.folder / WEIGHTS)
        save_cold_rows(cold_rows, context.folder)
    of_slices = {} if carried is None else {**carried.facts, **slice_metrics(ranks, context.interactions, carried)}
    metrics: dict[str, Any] = {
        **before,
        **of_slices,
        **best.metrics,
        "validation/users": len(data.validated),
        **tested,
        "test/users": len(data.tested),
        **({"best_epoch": best.epoch} if trainer.current_epoch > 0 else {}),
        "epochs": trainer.current_epoch,
    }
    return module, metrics


def metrics_before(trainer: lightning.Trainer, module: NextItemModule, data: SequenceDataModule) -> dict[str, float]:
    """Tests the earlier weights as they are: what the earlier recommender is worth on today's data.

    The id embeddings of new items, and vectors of new users, are freshly drawn and so close to zero; a fusion knows of
    a new item what the knowledge store or its category says.

    Args:
        trainer: of the training, which has not begun.
        module: with the earlier weights.
        data: today's.

    Returns:
        The test's metrics, named `before/…`.
    """
    # The logs and the tracker hold one test, that of the result.
    loggers, trainer.loggers = trainer.loggers, []
    tested = trainer.test(module, data, verbose=False)[0]
    trainer.loggers = loggers
    module.test_ranks = UserRanks()
    return {f"before/{name.removeprefix('test/')}": value for name, value in tested.items()}


def slice_metrics(ranks: Mapping[str, Tensor], interactions: Interactions, carried: Carried) -> dict[str, float]:
    """The test's HR and NDCG of the users whose target is warm, and of those whose target is cold (see `cold_items`).

    Args:
        ranks: as `UserRanks.gather` gives them.
        interactions: today's data set.
        carried: knows which items are cold.

    Returns:
        `warm/users`, `cold/users`, and where there are users `warm/masked/HR@10` and so on.
    """
    users_T = ranks["users"].numpy()
    targets_T = interactions.items[interactions.offsets[users_T + 1] - TEST]
    cold_T = carried.cold_I.numpy()[targets_T]
    by_protocol = {name: ranks_T.numpy() for name, ranks_T in ranks.items() if name != "users"}
    found: dict[str, float] = {}
    for name, chosen_T in (("warm", ~cold_T), ("cold", cold_T)):
        found[f"{name}/users"] = int(chosen_T.sum())
        if chosen_T.any():
            values = metrics_of(by_protocol, chosen_T.nonzero()[0])
            found.update({f"{name}/{metric}": value for metric, value in values.items()})
    return found
