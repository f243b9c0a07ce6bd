"""The rival method E4SRec (Li et al. 2023): the language model itself recommends, after one example per interaction.

It runs on the same packing and fine-tuning code as the preference SFT, so that a comparison of their costs (the paper's
Figure 3) compares the methods and not their implementations.

Shapes: I items (row 0 is padding), D hidden size of the backbone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tslrec.evaluation.user_ranks import save_ranks
from tslrec.llm.adapter import save_trained
from tslrec.llm.weights_source import resolve
from tslrec.stages.context import StageContext
from tslrec.stages.e4srec.data import InstanceDataModule
from tslrec.stages.e4srec.model import e4srec_packer, new_e4srec
from tslrec.stages.e4srec.module import E4SRecModule
from tslrec.stages.outputs import read_item_embeddings
from tslrec.stages.recommender import counts_for
from tslrec.training.best_weights import selection_callbacks
from tslrec.training.deepspeed_zero import full_numel, gathered
from tslrec.training.resuming import fit


def run(context: StageContext) -> dict[str, Any]:
    """Writes `adapter/` (PEFT's own format), `heads.safetensors` and `ranks.safetensors`.

    Returns:
        `validation/…` and `test/…` of both ranking protocols, `validation/users` and `test/users` (users evaluated),
        the best epoch and how many were run, trainable parameters.
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
        share=numbers.share,
        validation_users=config.training.validation_users,
        test_users=config.training.test_users,
    )
    module = E4SRecModule(
        lambda: new_e4srec(config.llm, numbers.lora, source, item_embeddings_ID),
        num_steps=len(data.batches) * numbers.max_epochs,
        learning_rate=numbers.learning_rate,
        weight_decay=numbers.weight_decay,
        warmup_steps=numbers.warmup_steps,
        metrics=config.metrics,
        training_counts_I=counts_for(config.metrics, context.interactions),
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
    with gathered(model.trainable_parameters()):
        if trainer.is_global_zero:
            save_ranks(ranks, context.folder)
            save_trained(model, context.folder, source)
    return {
        **best.metrics,
        "validation/users": len(data.validated),
        **tested,
        "test/users": len(data.tested),
        "best_epoch": best.epoch,
        "epochs": trainer.current_epoch,
        "trainable_parameters": full_numel(model.trainable_parameters()),
    }
