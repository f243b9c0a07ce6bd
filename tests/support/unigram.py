"""A tokenizer of T5's kind, trained on P5's texts."""

from __future__ import annotations

from pathlib import Path

from tslrec.stages.p5.templates import ALL_TEMPLATES

NAMES = ("Beauty", "ml-1m", "my Shop 2")
"""Names of data sets that it knows."""


def trained_unigram(folder: Path) -> Path:
    """A folder with a tokenizer of T5's kind: unigrams, words that begin with `▁`, `</s>` at the end."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    special = ["<pad>", "</s>", "<unk>"]
    trainer = trainers.UnigramTrainer(vocab_size=180, special_tokens=special, unk_token="<unk>", show_progress=False)
    texts = [*ALL_TEMPLATES, *NAMES, *(f"user_{number} item_{number * 7} , 00,000" for number in range(2000))]
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokens = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **tokens).save_pretrained(folder)
    return folder
