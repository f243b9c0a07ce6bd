"""The training and the two tests of P5's language model, whichever it is."""

from __future__ import annotations

from typing import Any

import lightning

from tslrec.evaluation.hooks import RankingHooks
from tslrec.evaluation.user_ranks import save_ranks
from tslrec.stages.context import StageContext
from tslrec.stages.p5.packed_data import PackedDataModule
from tslrec.stages.p5.unseen import ask_unseen
from tslrec.training.best_weights import selection_callbacks
from tslrec.training.resuming import fit


def fit_and_test(
    context: StageContext, module: RankingHooks, data: PackedDataModule[Any, Any], *, llm: bool
) -> tuple[lightning.Trainer, dict[str, Any]]:
    """Trains, leaves the module with the weights of the best epoch, and tests them; writes `ranks.safetensors`.

    Args:
        context: of the stage.
        module: with the language model.
        data: the texts.
        llm: whether the trainer is that of the configured language model (`trainer.llm_strategy` and the like).

    Returns:
        The trainer, and the metrics but for the sizes of the model: see the stage `p5`.

    Raises:
        UserError: if a loss or a gradient is not finite, or a checkpoint cannot be read.
    """
    config, numbers = context.config, context.config.p5
    best, callbacks = selection_callbacks(config.training.selection, patience=numbers.max_epochs)
    trainer = context.make_trainer(
        max_epochs=numbers.max_epochs, callbacks=callbacks, llm=llm, gradient_clip=numbers.gradient_clip
    )
    fit(trainer, module, data)
    best.restore(module)
    tested = trainer.test(module, data, verbose=False)[0]
    ranks = module.test_ranks.gather(context.interactions.num_users, module.device)
    unseen = ask_unseen(trainer, module, data.unseen_dataloader())
    if trainer.is_global_zero:
        save_ranks(ranks, context.folder)
    return trainer, {
        **best.metrics,
        "validation/users": len(data.validated),
        **tested,
        "test/users": len(data.tested),
        **unseen,
        "best_epoch": best.epoch,
        "epochs": trainer.current_epoch,
    }
