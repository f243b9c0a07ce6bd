"""The rival method P5 (Geng et al. 2022, as in OpenP5, Xu et al. 2024): a T5 writes the code of the next item.

It runs on the framework's own T5, which lays the texts of a step out with next to no padding, and searches one trie of
all items for all users.

Otherwise than in the public code (agiresearch/OpenP5, commit 7f11038): `</s>` belongs to no word, whatever else is in
its batch; several processes train one model, not one each; the weights of the best epoch by the validation's NDCG@10
are kept (`training.selection`), where the authors keep the last; both ranking protocols are tested, where their scripts
mask in some and not in others, and a masked list is searched without the seen items, so that it is as long as the other
one; and torch's AdamW adds its epsilon after the correction of the second moment's bias. Early stopping would cut the
falling learning rate off, so there is none. The templates are worded anew.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from safetensors.torch import save_file

from tslrec.llm.encoder_decoder.trie import build_trie
from tslrec.stages.context import StageContext
from tslrec.stages.item_index.codes import read_item_index
from tslrec.stages.outputs import WEIGHTS
from tslrec.stages.p5.data import TextDataModule
from tslrec.stages.p5.fitting import fit_and_test
from tslrec.stages.p5.model import check_words, new_model, vocabulary_of, writer_of
from tslrec.stages.p5.module import P5Module
from tslrec.stages.p5.packed import packed_texts, packed_users
from tslrec.stages.p5.packed_data import PackedDataModule
from tslrec.stages.recommender import counts_for


def run(context: StageContext) -> dict[str, Any]:
    """Writes `weights.safetensors` and `ranks.safetensors`.

    Returns:
        `validation/…` and `test/…` of both ranking protocols by the first seen template; `unseen/…`, the test by a
        template that no training text has; `validation/users` and `test/users`; the best epoch and how many were run;
        trainable parameters and tokens of the vocabulary.

    Raises:
        UserError: if the table of whole words is too small, or the item index does not fit.
    """
    config, numbers = context.config, context.config.p5
    interactions = context.interactions
    index = read_item_index(context.inputs["item_index"])
    vocabulary = vocabulary_of(config.t5, config.data.name, index)
    writer = writer_of(vocabulary, config.data.name, interactions.num_users, index)
    check_words(writer, numbers, config.t5)
    trie = build_trie(writer.output_codes())
    texts = TextDataModule(interactions, writer, numbers, context.seed)
    data = PackedDataModule(texts, config.training, packed_texts, partial(packed_users, trie=trie))
    module = P5Module(
        new_model(config.t5, vocabulary, index),
        trie,
        num_steps=len(data.batches) * numbers.max_epochs,
        learning_rate=numbers.learning_rate,
        weight_decay=numbers.weight_decay,
        warmup=numbers.warmup,
        beams=numbers.beams,
        metrics=config.metrics,
        training_counts_I=counts_for(config.metrics, interactions),
    )
    trainer, metrics = fit_and_test(context, module, data, llm=False)
    if trainer.is_global_zero:
        save_file(
            {name: value.contiguous() for name, value in module.model.state_dict().items()}, context.folder / WEIGHTS
        )
    return {
        **metrics,
        "trainable_parameters": sum(parameter.numel() for parameter in module.model.parameters()),
        "vocabulary": len(vocabulary),
    }
