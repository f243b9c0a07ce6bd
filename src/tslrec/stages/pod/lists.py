"""The two ways in which POD's language model gives a user ten items, each for both ranking protocols.

Shapes: U users, N beams, K places of a list, T tokens of a beam.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from tslrec.evaluation.hooks import ListedUsers
from tslrec.evaluation.protocols import LIST_LENGTH
from tslrec.llm.encoder_decoder.beams import BeamSearch, generate_items, view_of
from tslrec.llm.encoder_decoder.candidates import AnyToken
from tslrec.llm.encoder_decoder.model import EncoderDecoder
from tslrec.llm.encoder_decoder.shape import END
from tslrec.llm.encoder_decoder.trie import Trie, build_trie
from tslrec.stages.pod.numbering import Numbering
from tslrec.stages.pod.packed import PackedUsers
from tslrec.stages.pod.parsing import listed_users
from tslrec.stages.pod.vocabulary import Vocabulary

MOST_TOKENS = 49
"""Tokens of a free text at most: the public code's `max_length` of 50 counts the decoder's first input."""


class Lists(Protocol):
    """Gives users their lists."""

    def seen(self, histories: Sequence[NDArray[np.int64]]) -> Tensor | None:
        """What the search must know of the items that users had before, if anything.

        Args:
            histories: item ids per user.
        """

    def of(self, model: EncoderDecoder, users: PackedUsers) -> ListedUsers:
        """The lists of a batch.

        Args:
            model: the language model, in evaluation.
            users: the batch, on the model's device.
        """


class ItemLists:
    """Only items can be generated; under the masked protocol, only such that the user did not have before.

    Args:
        codes: the tokens of each item's target without `</s>`, by item id (`PromptWriter.item_codes`).
        num_beams: N.
    """

    def __init__(self, codes: Sequence[tuple[int, ...]], num_beams: int) -> None:
        self.trie = build_trie([(), *((*code, END) for code in codes[1:])])
        self.num_beams = num_beams
        self.there: Trie = self.trie
        """The trie on the device of the latest batch."""

    def seen(self, histories: Sequence[NDArray[np.int64]]) -> Tensor:
        return self.trie.seen(histories)

    def of(self, model: EncoderDecoder, users: PackedUsers) -> ListedUsers:
        device = users.sources.tokens_N.device
        if self.there.place_I.device != device:
            self.there = self.trie.to(device)
        view = view_of(model, users.sources)
        masked_UK, unmasked_UK = (
            generate_items(model, users.sources, self.there, seen, num_beams=self.num_beams, view=view)[0]
            for seen in (users.seen, None)
        )
        return ListedUsers(users.users, unmasked_UK[:, :LIST_LENGTH], masked_UK[:, :LIST_LENGTH])


class FreeTextLists:
    """Any text may be generated, and items are read out of the texts, as in the public code (lileipisces/POD fd31697).

    Args:
        vocabulary: of the language model.
        numbering: of the prompts.
        num_beams: N.
    """

    def __init__(self, vocabulary: Vocabulary, numbering: Numbering, num_beams: int) -> None:
        self.vocabulary = vocabulary
        self.numbering = numbering
        self.search = BeamSearch(num_beams, MOST_TOKENS, early_stopping=True)

    def seen(self, histories: Sequence[NDArray[np.int64]]) -> None:
        return None

    def of(self, model: EncoderDecoder, users: PackedUsers) -> ListedUsers:
        beams = self.search(model, users.sources, AnyToken())
        texts_UN = [[self.vocabulary.text(tokens) for tokens in row] for row in beams.tokens_UKT.tolist()]
        return listed_users(users.users, texts_UN, self.numbering)
