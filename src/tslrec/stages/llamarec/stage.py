"""The ranker of the rival method LlamaRec (Yue et al. 2023): a language model reranks what the backbone retrieves.

It runs on the same fine-tuning code, packing and shared instruction as the preference SFT and E4SRec, so that a
comparison of their costs compares the methods and not their implementations.

Otherwise than in the public code (github.com/Yueeeeeeee/LlamaRec, commit 48b288b): the scored tokens are those that
were labels, also where SentencePiece has another token for a letter alone; negatives are distinct; the longest training
prompts keep BOS, as those of the test do; a target that was not retrieved keeps its retriever's rank instead of
counting as missed, which changes no metric up to the number of candidates; and all seen items are masked, not only
those that the models read.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from tslrec.data.datamodule import SequenceDataModule
from tslrec.data.evaluated_users import sample_users
from tslrec.data.interactions import TEST, VALIDATION
from tslrec.data.item_titles import read_item_titles
from tslrec.evaluation.chosen_metrics import needs_lists, parse_metric
from tslrec.evaluation.user_ranks import save_ranks
from tslrec.llm.adapter import save_trained
from tslrec.llm.loading import load_tokenizer
from tslrec.llm.text import TextLLM
from tslrec.llm.title_tokens import encode_titles
from tslrec.llm.weights_source import resolve
from tslrec.stages.context import StageContext
from tslrec.stages.fusion_inputs import Sources
from tslrec.stages.llamarec.data import RankerDataModule
from tslrec.stages.llamarec.model import new_ranker, ranker_packer
from tslrec.stages.llamarec.module import RankerModule
from tslrec.stages.llamarec.prompt import pieces_for
from tslrec.stages.llamarec.retrieval import Retrieved, retrieve
from tslrec.stages.recommender import counts_for
from tslrec.stages.restored import restore_backbone
from tslrec.training.best_weights import selection_callbacks
from tslrec.training.deepspeed_zero import full_numel, gathered
from tslrec.training.resuming import fit


def run(context: StageContext) -> dict[str, Any]:
    """Writes `adapter/` (PEFT's own format), `heads.safetensors` (empty: no layer is trained beside LoRA) and
    `ranks.safetensors`.

    Returns:
        `validation/…` and `test/…` of both ranking protocols, and how many users they are of; `retrieved/…`, the share
        of test targets among the candidates by protocol; `reranked_users`, the tested users of whom the language model
        reranked a list; `instances` that were trained on; `missing_titles`; the best validation (`best_epoch`) and how
        many there were; trainable parameters.
    """
    config, numbers = context.config, context.config.llamarec
    source = resolve(config.llm, Path(config.cache))
    tokenizer = load_tokenizer(source)
    pieces = pieces_for(tokenizer, numbers)
    titles = read_item_titles(context.inputs["titles"])
    items = encode_titles(tokenizer, titles.texts, numbers.title_tokens)
    of_lists = [parse_metric(name)[1] for name in config.metrics if needs_lists(name)]
    retrieved = retrieve_all(context, max([numbers.candidates, *of_lists]))
    data = RankerDataModule(
        context.interactions,
        pieces,
        items,
        ranker_packer(pieces, shared_prefix=config.llm.shared_prefix),
        numbers=numbers,
        retrieved=retrieved,
        seed=context.seed,
        tests_lists=bool(of_lists),
    )
    drawn = torch.get_rng_state()

    def make_model() -> TextLLM:
        # The retriever drew random numbers, and DDP then seeds anew: the first weights are those of one process.
        torch.set_rng_state(drawn)
        return new_ranker(config.llm, numbers.lora, source, pieces, items)

    module = RankerModule(
        make_model,
        torch.from_numpy(pieces.answer.letters_C),
        num_steps=data.num_steps,
        learning_rate=numbers.learning_rate,
        weight_decay=numbers.weight_decay,
        warmup_steps=numbers.warmup_steps,
        tokens_at_once=numbers.tokens_at_once,
        metrics=config.metrics,
        training_counts_I=counts_for(config.metrics, context.interactions),
    )
    best, callbacks = selection_callbacks(config.training.selection, numbers.patience)
    trainer = context.make_trainer(
        max_epochs=data.num_epochs, callbacks=callbacks, llm=True, gradient_clip=numbers.gradient_clip
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
    masked, unmasked = retrieved[TEST].holds_target(numbers.candidates).mean(axis=1).tolist()
    return {
        **best.metrics,
        **tested,
        "validation/users": len(retrieved[VALIDATION].users_U),
        "test/users": len(retrieved[TEST].users_U),
        "retrieved/masked": masked,
        "retrieved/unmasked": unmasked,
        "reranked_users": int(data.needed_users(TEST, needs_lists=data.tests_lists).sum()),
        "instances": len(data.prefixes),
        "missing_titles": titles.num_missing,
        "best_epoch": best.epoch,
        "epochs": trainer.current_epoch,
        "trainable_parameters": full_numel(model.trainable_parameters()),
    }


def retrieve_all(context: StageContext, length: int) -> dict[int, Retrieved]:
    """What the backbone retrieves for the users of the validation and of the test, by `VALIDATION` and `TEST`.

    Args:
        context: the stage's.
        length: items of a list.
    """
    config = context.config
    sources = Sources(config, context.interactions, context.inputs)
    backbone = restore_backbone(sources, context.inputs["backbone"]).backbone
    assert backbone is not None
    if config.trainer.on_gpu and torch.cuda.is_available():
        backbone.to(torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))))
    data = SequenceDataModule(
        context.interactions,
        max_len=config.training.max_len,
        batch_size=config.training.batch_size,
        eval_batch_size=config.training.eval_batch_size,
        all_positions=False,
        seed=context.seed,
    )
    counts = {VALIDATION: config.training.validation_users, TEST: config.training.test_users}
    return {
        held_out: retrieve(backbone, data, sample_users(context.interactions, count), held_out, length)
        for held_out, count in counts.items()
    }
