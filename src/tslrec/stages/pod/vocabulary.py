"""POD's vocabulary: a small one of its own for a language model with random weights, or that of a real T5.

Shapes: V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from tslrec.llm.encoder_decoder.shape import END
from tslrec.settings.language_models import EncoderDecoderConfig
from tslrec.stages.p5.vocabulary import WORD, OwnVocabulary, t5_tokenizer
from tslrec.stages.pod.pieces import Tokenizer
from tslrec.stages.pod.templates import words

NAMES = ("user_1", "item_1")
"""Texts with every token of users' and items' names, but for their numbers."""


@dataclass(frozen=True)
class Vocabulary:
    """The tokens that prompts and targets are made of.

    Attributes:
        tokenizer: cuts texts into tokens.
        texts_V: the text of each token, with a space before the first token of a word; none of `</s>` and its like.
    """

    tokenizer: Tokenizer
    texts_V: list[str]

    def __len__(self) -> int:
        """Number of token ids."""
        return len(self.texts_V)

    def text(self, tokens: Sequence[int]) -> str:
        """The text that generated tokens spell, up to `</s>`.

        Args:
            tokens: their ids.
        """
        ids = list(tokens)
        spelled = ids[: ids.index(END)] if END in ids else ids
        return "".join(self.texts_V[token] for token in spelled).removeprefix(" ")


def vocabulary_of(t5: EncoderDecoderConfig) -> Vocabulary:
    """The vocabulary that fits a language model.

    Args:
        t5: its section of the configuration.

    Raises:
        UserError: if `t5.path` holds no tokenizer of a T5.
    """
    if t5.path is None:
        own = OwnVocabulary([*words(), *NAMES], bare_numbers=True)
        return Vocabulary(own, spelled(own.tokens, special=range(END + 1)))
    theirs = t5_tokenizer(Path(t5.path).expanduser(), [])
    tokens = theirs.convert_ids_to_tokens(list(range(len(theirs))))
    return Vocabulary(cast(Tokenizer, theirs), spelled(tokens, special=theirs.all_special_ids))


def spelled(tokens: Sequence[str], *, special: Sequence[int]) -> list[str]:
    """The text of each token.

    Args:
        tokens: by id.
        special: ids of tokens that spell nothing.
    """
    nothing = set(special)
    return ["" if number in nothing else token.replace(WORD, " ") for number, token in enumerate(tokens)]
