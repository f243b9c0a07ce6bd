"""How many tokens an item takes in the prompts of the SFT and the augmentation (`sft.item_input`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tslrec.config import Config
from tslrec.reports.costs.work import ONE_TOKEN, ItemLength

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from tslrec.data.interactions import Interactions


def item_length(config: Config, interactions: Interactions, tokenizer: PreTrainedTokenizerBase | None) -> ItemLength:
    """The length of the data's items in a prompt.

    Args:
        config: the configuration.
        interactions: the data set.
        tokenizer: the language model's; None: it is not here, and tokens are estimated by characters.

    Raises:
        UserError: if `data.titles` names a file that cannot be read, or is of other items.
    """
    from tslrec.llm.title_tokens import encode_titles
    from tslrec.reports.costs.rival_sizes import title_tokens, titles_of

    sft = config.sft
    if not sft.reads_titles:
        return ONE_TOKEN
    titles = titles_of(config, interactions)
    if titles is None:
        found = ItemLength(float(sft.title_tokens), "at most: the data have no titles")
    elif tokenizer is None:
        found = ItemLength(*title_tokens(titles, sft.title_tokens))
    else:
        lengths = np.diff(encode_titles(tokenizer, ["", *titles], sft.title_tokens).offsets_I)[1:]
        found = ItemLength(float(np.minimum(lengths, sft.title_tokens).mean()), "counted")
    return found._replace(mean=found.mean + sft.item_tokens - sft.title_tokens)
