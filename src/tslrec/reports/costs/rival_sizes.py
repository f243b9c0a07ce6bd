"""Reads the sizes of LlamaRec, P5 and POD from the configuration and the data; what neither has is estimated."""

from __future__ import annotations

import math
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tslrec.config import Config
from tslrec.llm.encoder_decoder.source import read_config
from tslrec.reports.costs.llamarec import LlamaRecSizes
from tslrec.reports.costs.p5 import P5Sizes, code_length
from tslrec.reports.costs.pod import PODSizes, number_tokens
from tslrec.reports.costs.rivals_on_t5 import T5_VOCABULARY
from tslrec.stages.item_index.orders import FIRST_NUMBER
from tslrec.stages.p5.templates import NUM_SEEN
from tslrec.stages.p5.texts import words_of_texts
from tslrec.stages.p5.vocabulary import OwnVocabulary
from tslrec.stages.pod.templates import words

if TYPE_CHECKING:
    from tslrec.data.interactions import Interactions

CHARACTERS_PER_TOKEN = 5
"""Of a title, for its tokens are counted without a tokenizer."""

ASSUMED_TITLE = 13.0
"""Tokens of a title where the data have none: the mean of the titles of Amazon's Beauty, counted in the same way."""


class TitleTokens(NamedTuple):
    """The length of titles.

    Attributes:
        mean: tokens of a title, after those beyond the longest are cut off.
        known: how it is known.
    """

    mean: float
    known: str


def llamarec_sizes(config: Config, interactions: Interactions) -> LlamaRecSizes:
    """The sizes of LlamaRec's prompts.

    Raises:
        UserError: if `data.titles` names a file that cannot be read, or is of other items.
    """
    numbers = config.llamarec
    titles = title_tokens(titles_of(config, interactions), numbers.title_tokens)
    return LlamaRecSizes(
        titles.mean,
        history=numbers.history,
        candidates=min(numbers.candidates, interactions.num_items),
        longest=numbers.max_tokens,
        batch_size=numbers.batch_size,
        at_once=numbers.tokens_at_once,
        epochs=numbers.max_epochs,
        share=numbers.share,
        lora=numbers.lora,
        titles=titles.known,
    )


def titles_of(config: Config, interactions: Interactions) -> list[str] | None:
    """The text that stands for each item in a prompt, from 1 on; None where no titles are known.

    Raises:
        UserError: if `data.titles` names a file that cannot be read, or is of other items.
    """
    from tslrec.data.item_titles import neutral_title, texts_of_file
    from tslrec.data.titles_file import optional_titles_path

    path = optional_titles_path(config.data, Path(config.cache))
    if path is not None:
        return texts_of_file(path, interactions.ids.items, config.data.name)[0]
    if interactions.titles is None:
        return None
    return [
        title if title.strip() else neutral_title(raw_id)
        for title, raw_id in zip(interactions.titles[1:], interactions.ids.items[1:], strict=True)
    ]


def title_tokens(titles: Iterable[str] | None, longest: int) -> TitleTokens:
    """The estimated mean tokens of a title.

    Args:
        titles: of the items; None: the data have none.
        longest: tokens of a title at most.
    """
    characters: NDArray[np.int64] = np.array([len(title) for title in titles or () if title], dtype=np.int64)
    if len(characters) == 0:
        return TitleTokens(min(ASSUMED_TITLE, longest), "assumed: the data have no titles")
    tokens = np.minimum(np.ceil(characters / CHARACTERS_PER_TOKEN), longest)
    return TitleTokens(float(tokens.mean()), f"estimated, {CHARACTERS_PER_TOKEN} characters of the data's titles each")


def p5_sizes(config: Config, interactions: Interactions) -> P5Sizes:
    """The sizes of P5's texts, with the configured index."""
    numbers, index = config.p5, config.item_index
    if index.kind == "collaborative":
        code = code_length(interactions.num_items, index.num_clusters, index.leaf_size)
    else:
        code = math.ceil(number_tokens(interactions.num_items, FIRST_NUMBER))
    return P5Sizes(
        code_tokens=code,
        user_tokens=2 + math.ceil(number_tokens(interactions.num_users)),
        history=numbers.max_history,
        prompts=NUM_SEEN if numbers.prompts is None else numbers.prompts,
        tasks=len(numbers.tasks),
        beams=numbers.beams,
        batch_size=numbers.batch_size,
        epochs=numbers.max_epochs,
        share=numbers.share,
        longest=numbers.max_tokens,
        lora=numbers.lora,
    )


def pod_sizes(config: Config, interactions: Interactions) -> PODSizes:
    """The sizes of POD's prompts."""
    numbers = config.pod
    return PODSizes(
        user_number_tokens=number_tokens(interactions.num_users),
        item_number_tokens=number_tokens(interactions.num_items),
        prompt_vectors=numbers.prompt_vectors,
        history=numbers.history,
        candidates=min(numbers.candidates, interactions.num_items),
        beams=numbers.num_beams,
        batch_size=numbers.batch_size,
        epochs=numbers.max_epochs,
        steps_per_epoch=numbers.steps_per_epoch,
    )


def p5_vocabulary(config: Config, interactions: Interactions) -> int:
    """Tokens of P5's T5: its own ones where `t5.path` names it, else those of the texts; and those of the index.

    Raises:
        UserError: if `t5.path` holds no T5.
    """
    index = config.item_index
    new = min(index.leaf_size, interactions.num_items) if index.kind == "collaborative" else 0
    if config.t5.path is not None:
        return files_vocabulary(config.t5.path) + new
    return len(OwnVocabulary(words_of_texts(config.data.name))) + new


def pod_vocabulary(config: Config) -> int:
    """Tokens of POD's T5: its own ones where `t5.path` names it, else those of the prompts.

    Raises:
        UserError: if `t5.path` holds no T5.
    """
    if config.t5.path is not None:
        return files_vocabulary(config.t5.path)
    return len(OwnVocabulary([*words(), "user_", "item_"], bare_numbers=True))


def files_vocabulary(path: str) -> int:
    """Tokens of the T5 in a folder.

    Raises:
        UserError: if it holds no T5.
    """
    return int(read_config(Path(path).expanduser()).get("vocab_size", T5_VOCABULARY))
