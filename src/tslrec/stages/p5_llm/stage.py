"""The rival method P5 in its decoder-only form: a language model continues a text with the code of the next item.

The texts, their order and the item index are those of the stage `p5`; the language model is the configured one with
LoRA. Texts are packed into rows, and beam search reads each prompt once for both of a user's lists.

Otherwise than in the public code (agiresearch/OpenP5, commit 7f11038, `src_llama`; RIVALS.md 3.16): the vectors of the
index's tokens are trained, also in the head, where theirs stay random; `share` draws other instances in each epoch, and
each with several templates; a masked list is searched without the seen items; the best epoch by the validation's
NDCG@10 is kept; and numbers keep the vectors that the language model has of them.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from tslrec.llm.adapter import save_trained
from tslrec.llm.encoder_decoder.trie import build_trie
from tslrec.llm.prompt_packing import PromptPacker
from tslrec.llm.weights_source import resolve
from tslrec.stages.context import StageContext
from tslrec.stages.item_index.codes import read_item_index
from tslrec.stages.p5.data import TextDataModule
from tslrec.stages.p5.fitting import fit_and_test
from tslrec.stages.p5.packed_data import PackedDataModule
from tslrec.stages.p5_llm.model import new_model, vocabulary_of, writer_of
from tslrec.stages.p5_llm.module import P5LLMModule
from tslrec.stages.p5_llm.packed import answered_texts, asked_prompts
from tslrec.stages.recommender import counts_for
from tslrec.training.deepspeed_zero import full_numel, gathered


def run(context: StageContext) -> dict[str, Any]:
    """Writes `adapter/` (PEFT's own format), `heads.safetensors` (the vectors of the index's tokens) and
    `ranks.safetensors`.

    Returns:
        What the stage `p5` returns.

    Raises:
        UserError: if the tokenizer or the item index does not fit.
    """
    config, numbers = context.config, context.config.p5
    interactions = context.interactions
    source = resolve(config.llm, Path(config.cache))
    index = read_item_index(context.inputs["item_index"])
    vocabulary = vocabulary_of(source, index)
    writer = writer_of(vocabulary, config.data.name, interactions.num_users, index)
    trie = build_trie(writer.output_codes())
    texts = TextDataModule(interactions, writer, numbers, context.seed)
    pack_texts = partial(answered_texts, packer=PromptPacker(packs=config.llm.shared_prefix))
    data = PackedDataModule(texts, config.training, pack_texts, partial(asked_prompts, trie=trie))
    module = P5LLMModule(
        lambda: new_model(config.llm, numbers.lora, source, vocabulary.num_new),
        trie,
        num_steps=len(data.batches) * numbers.max_epochs,
        learning_rate=numbers.learning_rate,
        weight_decay=numbers.weight_decay,
        warmup=numbers.warmup,
        beams=numbers.beams,
        tokens_at_once=numbers.tokens_at_once,
        metrics=config.metrics,
        training_counts_I=counts_for(config.metrics, interactions),
    )
    trainer, metrics = fit_and_test(context, module, data, llm=True)
    model = module.model
    with gathered(model.trainable_parameters()):
        if trainer.is_global_zero:
            save_trained(model, context.folder, source)
    return {
        **metrics,
        "trainable_parameters": full_numel(model.trainable_parameters()),
        "vocabulary": vocabulary.num_known + vocabulary.num_new,
    }
