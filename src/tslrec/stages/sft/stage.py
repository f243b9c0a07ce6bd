"""Stage 3 of the pipeline: the language model learns to reconstruct users' preferences (paper, Section 4.1, Eq. 1-3).

Shapes: U users, K clusters, I items (row 0 is padding), D hidden size of the backbone.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import torch

from tslrec.evaluation.preference_fit import PreferenceFit
from tslrec.llm.adapter import save_trained
from tslrec.llm.weights_source import resolve
from tslrec.stages.context import StageContext
from tslrec.stages.outputs import CALIBRATION, PREFERENCES, read_item_embeddings
from tslrec.stages.sft.data import PreferenceDataModule
from tslrec.stages.sft.items import items_of
from tslrec.stages.sft.loading import new_model, preference_packer
from tslrec.stages.sft.module import BestFit, PreferenceSFTModule
from tslrec.system.files import write_json
from tslrec.system.safetensors_io import load_arrays
from tslrec.training.best_weights import early_stopping
from tslrec.training.deepspeed_zero import full_numel, gathered
from tslrec.training.resuming import fit

CALIBRATION_USERS = 256
"""Users in the sample by which `PreferenceLLM.calibrate` standardises the group head's inputs before training."""


def run(context: StageContext) -> dict[str, Any]:
    """Trains the language model and writes `adapter/` (PEFT's own format), `heads.safetensors`, `calibration.json`.

    Args:
        context: needs the results of `backbone` and `preferences`, and `titles` where `sft.item_input` reads them.

    Returns:
        `loss_mean` and `loss_final` (Eq. 3 per user, over the whole training and over its last third); over that last
        third also `constant_loss` (the constant predictor's), `explained_share` of it, `top_category_right` and
        `calibration_error`; `tokens` read. With held-back users also `validation/…` (the same metrics on them, for the
        kept adapter), `best_epoch` and `epochs`. Always `trainable_parameters`, `trainable_share` of all parameters
        and `training_seconds`.

    Raises:
        UserError: if the language model cannot be loaded.
    """
    config, sft = context.config, context.config.sft
    item_embeddings_ID = read_item_embeddings(context.inputs["backbone"])
    preferences = load_arrays(context.inputs["preferences"] / PREFERENCES)
    targets_UK = preferences["preferences"]
    num_clusters = targets_UK.shape[1]
    source = resolve(config.llm, Path(config.cache))
    items = items_of(context, source)
    data = PreferenceDataModule(
        context.interactions,
        targets_UK,
        preference_packer(config.llm, source, num_clusters, items),
        max_len=config.training.max_len,
        batch_size=sft.batch_size,
        seed=context.seed,
        held_back=sft.held_back,
        eval_batch_size=sft.eval_batch_size,
        steps_per_epoch=sft.steps_per_epoch,
    )
    module = PreferenceSFTModule(
        lambda: new_model(config.llm, source, item_embeddings_ID, num_clusters, items),
        torch.from_numpy(targets_UK[data.trained].mean(axis=0)),
        data.sample(CALIBRATION_USERS),
        num_steps=len(data.batches) * sft.max_epochs,
        learning_rate=sft.learning_rate,
        weight_decay=sft.weight_decay,
        warmup=sft.warmup,
    )
    best = BestFit()
    trainer = context.make_trainer(
        max_epochs=sft.max_epochs,
        callbacks=[best, early_stopping(best, sft.patience)] if len(data.held_back) else [],
        llm=True,
        gradient_clip=sft.gradient_clip,
    )
    started = time.perf_counter()
    fit(trainer, module, data)
    seconds = time.perf_counter() - started
    totals = module.totals.over_processes(trainer.strategy.root_device)
    metrics, calibration = totals.metrics(), totals.last.report("users of the last steps of the training")
    if len(data.held_back):
        best.restore(module)
        calibration = PreferenceFit(num_clusters, best.sums).report("held-back users")
        metrics |= {**best.metrics, "validation/users": len(data.held_back)}
        metrics |= {"best_epoch": best.epoch, "epochs": trainer.current_epoch}
    model = module.model
    trainable = full_numel(model.trainable_parameters())
    with gathered(model.trainable_parameters()):
        if trainer.is_global_zero:
            save_trained(model, context.folder, source)
            write_json(context.folder / CALIBRATION, calibration)
    return {
        **metrics,
        "trainable_parameters": trainable,
        "trainable_share": trainable / full_numel(model.parameters()),
        "training_seconds": seconds,
    }
