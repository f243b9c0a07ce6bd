"""POD's own vocabulary: it knows all texts, spells numbers, and is the same in every process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from support.checkout import PYTHONPATH
from tslrec.llm.encoder_decoder.shape import END, PADDING
from tslrec.settings.language_models import EncoderDecoderConfig
from tslrec.stages.pod.numbering import Numbering
from tslrec.stages.pod.parsing import number_in
from tslrec.stages.pod.pieces import PromptWriter
from tslrec.stages.pod.templates import TEMPLATES
from tslrec.stages.pod.vocabulary import vocabulary_of

VOCABULARY = vocabulary_of(EncoderDecoderConfig())


@given(st.integers(1, 10**7), st.lists(st.integers(0, len(VOCABULARY) - 1), max_size=4))
def test_a_generated_number_is_read_up_to_the_end(number: int, behind: list[int]) -> None:
    tokenizer = VOCABULARY.tokenizer
    tokens = tokenizer.convert_tokens_to_ids(tokenizer.tokenize(str(number)))
    assert VOCABULARY.text(tokens) == str(number)
    assert number_in(VOCABULARY.text([*tokens, END, *behind])) == number
    assert VOCABULARY.text([END, *tokens]) == ""
    assert VOCABULARY.text([PADDING, *tokens]) == str(number)


def test_every_item_has_a_code_of_its_own_that_spells_its_number() -> None:
    numbering = Numbering(np.arange(1, 4), np.arange(1235))
    codes = PromptWriter(VOCABULARY.tokenizer, numbering).item_codes()
    assert len(set(codes)) == len(codes) == 1235
    assert [VOCABULARY.text(code) for code in codes[1:]] == [str(item) for item in range(1, 1235)]
    assert max(max(code) for code in codes[1:]) < len(VOCABULARY)


def test_it_is_the_same_whatever_the_hash_seed() -> None:
    program = (
        "from tslrec.stages.pod.vocabulary import vocabulary_of; "
        "from tslrec.settings.language_models import EncoderDecoderConfig; "
        "print(vocabulary_of(EncoderDecoderConfig()).texts_V)"
    )
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": PYTHONPATH}
        ended = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True
        )
        assert ended.stdout.strip() == str(VOCABULARY.texts_V)


def test_a_t5s_own_vocabulary_spells_numbers_too(tmp_path: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    unigrams = Tokenizer(models.Unigram())
    unigrams.pre_tokenizer = pre_tokenizers.Metaspace()
    special = {"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    trainer = trainers.UnigramTrainer(
        vocab_size=150, special_tokens=list(special.values()), unk_token="<unk>", show_progress=False
    )
    texts = [text for task in TEMPLATES.values() for text in task]
    unigrams.train_from_iterator([*texts, *(f"user_{n} item_{n * 7} {n}" for n in range(2000))], trainer)
    PreTrainedTokenizerFast(tokenizer_object=unigrams, **special).save_pretrained(tmp_path)
    vocabulary = vocabulary_of(EncoderDecoderConfig(path=str(tmp_path)))
    writer = PromptWriter(vocabulary.tokenizer, Numbering(np.arange(1, 4), np.arange(1000)))
    codes = writer.item_codes()[1:]
    assert len(set(codes)) == 999
    assert [vocabulary.text([*code, END, 5]) for code in codes] == [str(item) for item in range(1, 1000)]
    assert max(max(code) for code in codes) < len(vocabulary)
    assert vocabulary.text([2, END]) == vocabulary.text([PADDING]) == ""
