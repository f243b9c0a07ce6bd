"""The rival method POD (Li et al. 2023): a T5 with prompt vectors names the next item by its number.

It runs on the encoder-decoder that P5 runs on. What the public code does otherwise, and `pod.released` restores, stands
at `PODConfig`. The task of explaining is left out in both forms, since reviews are none of this framework's data.
"""

from __future__ import annotations

from typing import Any

import torch
from safetensors.torch import save_file

from tslrec.evaluation.user_ranks import save_ranks
from tslrec.llm.encoder_decoder.building import build
from tslrec.llm.encoder_decoder.packing import Packer
from tslrec.settings.rivals import PODConfig
from tslrec.stages.context import StageContext
from tslrec.stages.outputs import WEIGHTS
from tslrec.stages.pod.data import PODDataModule, numbering_of
from tslrec.stages.pod.lists import FreeTextLists, ItemLists, Lists
from tslrec.stages.pod.module import LOSS, PODModule
from tslrec.stages.pod.numbering import Numbering
from tslrec.stages.pod.packed import PackedDataModule
from tslrec.stages.pod.pieces import PromptWriter
from tslrec.stages.pod.stopping import TooManyWorse
from tslrec.stages.pod.templates import NUM_TASKS
from tslrec.stages.pod.vocabulary import Vocabulary, vocabulary_of
from tslrec.stages.recommender import counts_for
from tslrec.training.best_weights import BestWeights, early_stopping
from tslrec.training.resuming import fit

NUMBERING = "numbering.safetensors"
"""The file of the numbers in prompts: `users` `[U]` and `items` `[I + 1]`, both int64."""


def run(context: StageContext) -> dict[str, Any]:
    """Writes `weights.safetensors`, `numbering.safetensors` and `ranks.safetensors`.

    Returns:
        `validation/loss` and the losses of both tasks, `test/…` of both ranking protocols, `validation/users` and
        `test/users`, the best epoch and how many were run, trainable parameters, tokens of the vocabulary.

    Raises:
        UserError: if the data are too small, or `t5.path` does not hold a T5.
    """
    config, numbers = context.config, context.config.pod
    vocabulary = vocabulary_of(config.t5)
    numbering = numbering_of(context.interactions, numbers, context.seed)
    writer = PromptWriter(vocabulary.tokenizer, numbering)
    lists = lists_of(numbers, vocabulary, writer, numbering)
    prompts = PODDataModule(
        context.interactions,
        writer,
        numbers,
        context.seed,
        validation_users=config.training.validation_users,
        test_users=config.training.test_users,
    )
    data = PackedDataModule(prompts, packer_of(numbers), lists.seen)
    size = len(vocabulary)
    model = build(config.t5, size, num_known=size, num_prompts=NUM_TASKS * numbers.prompt_vectors)
    module = PODModule(
        model,
        lists,
        learning_rate=numbers.learning_rate,
        weight_decay=numbers.weight_decay,
        metrics=config.metrics,
        training_counts_I=counts_for(config.metrics, context.interactions),
    )
    best = BestWeights(LOSS, mode="min")
    stopping = TooManyWorse(LOSS, numbers.patience) if numbers.released else early_stopping(best, numbers.patience)
    trainer = context.make_trainer(max_epochs=numbers.max_epochs, callbacks=[best, stopping])
    fit(trainer, module, data)
    best.restore(module)
    tested = trainer.test(module, data, verbose=False)[0]
    ranks = module.test_ranks.gather(context.interactions.num_users, module.device)
    if trainer.is_global_zero:
        save_ranks(ranks, context.folder)
        save_file({name: value.contiguous() for name, value in model.state_dict().items()}, context.folder / WEIGHTS)
        by_row = {"users": numbering.of_user_U, "items": numbering.of_item_I}
        save_file({name: torch.from_numpy(each) for name, each in by_row.items()}, context.folder / NUMBERING)
    return {
        **best.metrics,
        "validation/users": len(prompts.validated),
        **tested,
        "test/users": len(prompts.tested),
        "best_epoch": best.epoch,
        "epochs": trainer.current_epoch,
        "trainable_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "vocabulary": size,
    }


def packer_of(numbers: PODConfig) -> Packer:
    """Lays out POD's prompts and targets.

    Args:
        numbers: of the method.
    """
    return Packer(num_prompts=numbers.prompt_vectors, loss_by_rows=False, released=numbers.released)


def lists_of(numbers: PODConfig, vocabulary: Vocabulary, writer: PromptWriter, numbering: Numbering) -> Lists:
    """How the language model gives users their lists.

    Args:
        numbers: of the method.
        vocabulary: of the language model.
        writer: of prompts and targets.
        numbering: of the prompts.
    """
    if numbers.released:
        return FreeTextLists(vocabulary, numbering, numbers.num_beams)
    return ItemLists(writer.item_codes(), numbers.num_beams)
