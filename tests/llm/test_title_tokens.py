"""Titles with tokens that the language model does not have are refused before they are looked up."""

from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from tslrec.llm.title_tokens import refuse_unknown_words
from tslrec.system.errors import UserError


class Base(nn.Module):
    """A language model of so many tokens."""

    def __init__(self, known: int) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(known, 2)

    def get_input_embeddings(self) -> nn.Embedding:
        return self.embeddings


def test_the_largest_token_must_be_known() -> None:
    base = Base(256)
    refuse_unknown_words(np.array([3, 255]), base)  # type: ignore[arg-type]
    refuse_unknown_words(np.array([], dtype=np.int64), base)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="token 256 in a title, the model has 256; give the model's own tokenizer"):
        refuse_unknown_words(np.array([3, 256]), base)  # type: ignore[arg-type]
