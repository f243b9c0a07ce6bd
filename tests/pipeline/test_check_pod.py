"""What is refused of POD's settings before any data are read: one line, with a number that works."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tslrec.config import Config
from tslrec.pipeline.check_pod import check_pod
from tslrec.settings.choices import MethodConfig
from tslrec.settings.language_models import EncoderDecoderConfig
from tslrec.settings.rivals import PODConfig
from tslrec.system.errors import UserError

SMALL = EncoderDecoderConfig(d_model=8, d_kv=4, d_ff=8, num_layers=1, num_decoder_layers=1, num_heads=2)


def config_of(pod: PODConfig, t5: EncoderDecoderConfig = SMALL, stage: str = "pod") -> Config:
    return Config(method=MethodConfig(stage, [stage]), pod=pod, t5=t5)


@given(st.integers(1, 700), st.integers(1, 700), st.integers(1, 700))
def test_a_table_of_whole_words_that_a_prompt_outgrows_is_refused(candidates: int, history: int, rows: int) -> None:
    config = config_of(PODConfig(candidates=candidates, history=history), replace(SMALL, whole_words=rows))
    if rows > 1 + max(candidates, history):
        check_pod(config)
        return
    with pytest.raises(UserError, match="set it to that") as refused:
        check_pod(config)
    message = str(refused.value)
    assert len(message) <= 300
    needed = int(re.findall(r"needs (\d+)", message)[0])
    check_pod(replace(config, t5=replace(config.t5, whole_words=needed)))
    with pytest.raises(UserError):
        check_pod(replace(config, t5=replace(config.t5, whole_words=needed - 1)))


def test_a_t5_that_no_memory_holds_is_refused() -> None:
    huge = replace(SMALL, d_model=65536, d_ff=2**20, num_layers=40)
    with pytest.raises(UserError, match=r"t5\.d_model=65536, t5\.d_ff=1048576, .* GiB") as refused:
        check_pod(config_of(PODConfig(), huge))
    assert len(str(refused.value)) <= 300
    check_pod(config_of(PODConfig(), huge, stage="item_index"))


def test_distances_that_do_not_fit_the_buckets_are_refused() -> None:
    with pytest.raises(UserError, match=r"t5\.relative_attention_max_distance=16"):
        check_pod(config_of(PODConfig(), replace(SMALL, relative_attention_max_distance=16)))
