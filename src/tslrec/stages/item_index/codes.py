"""An item index: a code of tokens for each item, on disk and in memory.

Shapes: I items (item 0 is padding and has no code), T tokens of all codes together.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tslrec.stages.item_index.collaborative import Code
from tslrec.stages.item_index.number_pieces import NUMBER_PIECES, pieces_of_number
from tslrec.system.errors import UserError
from tslrec.system.safetensors_io import ID_MAP, load_arrays

CODES = "item_codes.safetensors"
"""`tokens` int32 `[T]`, all codes one after the other, and `offsets` int64 `[I + 2]`, by item number."""

TOKENS = "index_tokens.json"
"""The text of each token of the index."""


@dataclass(frozen=True)
class ItemIndex:
    """The codes of all items.

    Attributes:
        item_codes: of each item number 0…I the tokens; those of item 0, padding, are none.
        token_texts: the text of each token: pieces of numbers, or `<CI0>`, `<CI1>`, ….

    Raises:
        ValueError: if two items have the same code, an item has none, or a token has no text.
    """

    item_codes: tuple[Code, ...]
    token_texts: tuple[str, ...]

    def __post_init__(self) -> None:
        codes = self.item_codes[1:]
        if self.item_codes[:1] != ((),) or not all(codes):
            raise ValueError("item 0 has no code, and every other item has one")
        if len(set(codes)) != len(codes):
            raise ValueError("two items have the same code")
        if len(set(self.token_texts)) != len(self.token_texts):
            raise ValueError("two tokens have the same text")
        if codes and not 0 <= min(map(min, codes)) <= max(map(max, codes)) < len(self.token_texts):
            raise ValueError(f"tokens of codes must lie in 0..{len(self.token_texts) - 1}")

    @property
    def num_items(self) -> int:
        """I."""
        return len(self.item_codes) - 1

    @cached_property
    def texts(self) -> tuple[str, ...]:
        """The text of each item's code, such as `1001` or `<CI3><CI17>`; "" for item 0."""
        return tuple("".join(self.token_texts[token] for token in code) for code in self.item_codes)

    @cached_property
    def new_tokens(self) -> tuple[str, ...]:
        """The texts of tokens that a pretrained tokenizer lacks; none where codes are numbers."""
        return () if self.token_texts == NUMBER_PIECES else self.token_texts


def index_of_numbers(numbers_I: NDArray[np.int64]) -> ItemIndex:
    """The index whose codes are numbers, cut into pieces of two digits.

    Args:
        numbers_I: of each item 0…I; that of item 0 is not read.
    """
    codes = ((), *(pieces_of_number(number) for number in numbers_I[1:].tolist()))
    return ItemIndex(codes, NUMBER_PIECES)


def index_of_codes(item_codes: Sequence[Code]) -> ItemIndex:
    """The index whose tokens are `<CI0>`, `<CI1>`, …, as many as its codes need."""
    count = 1 + max((max(code) for code in item_codes[1:]), default=-1)
    return ItemIndex(tuple(item_codes), tuple(f"<CI{token}>" for token in range(count)))


def write_item_index(index: ItemIndex, folder: Path, id_map: str) -> None:
    """Writes `item_codes.safetensors` and `index_tokens.json`.

    Args:
        index: the codes.
        folder: an existing folder.
        id_map: `IdMap.digest` of the items.
    """
    from safetensors.numpy import save_file

    offsets = np.cumsum([0, *map(len, index.item_codes)], dtype=np.int64)
    tokens = np.array([token for code in index.item_codes for token in code], dtype=np.int32)
    save_file({"tokens": tokens, "offsets": offsets}, folder / CODES, metadata={ID_MAP: id_map})
    (folder / TOKENS).write_text(json.dumps(list(index.token_texts)), encoding="utf-8")


def read_item_index(folder: Path) -> ItemIndex:
    """Reads what `write_item_index` wrote.

    Args:
        folder: the artifact of the stage `item_index`.

    Raises:
        UserError: if a file is missing, or the files do not fit together.
    """
    try:
        arrays = load_arrays(folder / CODES)
        texts = json.loads((folder / TOKENS).read_text(encoding="utf-8"))
        tokens, offsets = arrays["tokens"].tolist(), arrays["offsets"].tolist()
        codes = tuple(tuple(tokens[begin:end]) for begin, end in pairwise(offsets))
        return ItemIndex(codes, tuple(texts))
    except (OSError, KeyError, ValueError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:100]
        raise UserError(
            f"{folder}: not a readable item index ({reason}); delete the folder, and the next run makes it again"
        ) from error
