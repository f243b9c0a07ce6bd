"""The prompt is the paper's, with a BOS token where the model's tokenizer adds one."""

from __future__ import annotations

from tslrec.llm.tiny import byte_tokenizer
from tslrec.stages.sft.prompt import encode_prompt


def test_the_prompt_is_word_for_word_the_papers() -> None:
    tokenizer = byte_tokenizer()
    prompt = encode_prompt(tokenizer, 64)
    assert tokenizer.decode(prompt.instruction) == (
        "Given the user’s purchase history, predict the user’s distribution among 64 purchase preferences."
    )
    assert tokenizer.decode(prompt.response) == "Response:"


def test_the_instruction_begins_with_bos_if_the_tokenizer_adds_it() -> None:
    from tokenizers.processors import TemplateProcessing

    plain = encode_prompt(byte_tokenizer(), 8)
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    bos = tokenizer.bos_token_id
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", bos)])
    prompt = encode_prompt(tokenizer, 8)
    assert prompt.instruction == [bos, *plain.instruction]
    assert prompt.response == plain.response


def test_a_bos_token_that_the_tokenizer_does_not_add_is_left_out() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    assert encode_prompt(tokenizer, 8) == encode_prompt(byte_tokenizer(), 8)
