"""P5's item index: the tokens that stand for each item in a language model's text (Hua et al. 2023).

Shapes: I items.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tslrec.data.interactions import Interactions
from tslrec.settings.rivals import ItemIndexConfig
from tslrec.stages.context import StageContext
from tslrec.stages.item_index.co_occurrences import co_occurrences
from tslrec.stages.item_index.codes import ItemIndex, index_of_codes, index_of_numbers, write_item_index
from tslrec.stages.item_index.collaborative import codes_by_item, collaborative_tree
from tslrec.stages.item_index.orders import never_trained, numbers_in_order, trained_items, user_order


def run(context: StageContext) -> dict[str, Any]:
    """Writes the code of each item, `item_codes.safetensors`, and the tokens' texts, `index_tokens.json`.

    Returns:
        `tokens` of the index; `longest_code` and `mean_code` in tokens; `never_trained` items; of a collaborative index
        `splits`, the groups that were split, and `cuts`, those of them that no clustering split.
    """
    index, counts = make_item_index(context.interactions, context.config.item_index, context.seed)
    write_item_index(index, context.folder, context.interactions.ids.digest)
    lengths = [len(code) for code in index.item_codes[1:]]
    return {
        "tokens": len(index.token_texts),
        "longest_code": max(lengths),
        "mean_code": float(np.mean(lengths)),
        "never_trained": int((context.interactions.training_counts[1:] == 0).sum()),
        **counts,
    }


def make_item_index(interactions: Interactions, config: ItemIndexConfig, seed: int) -> tuple[ItemIndex, dict[str, int]]:
    """Makes the index of a data set.

    Args:
        interactions: the data set; of its held-out items only those that are never trained on are read, as a set.
        config: which index.
        seed: determines random orders, and where the iterations of the clustering start.

    Returns:
        The index, and how many groups the clustering split, where there is one.
    """
    others = never_trained(interactions, seed)
    if config.kind == "random":
        items = np.arange(1, interactions.num_items + 1)
        return index_of_numbers(numbers_in_order(np.random.default_rng(seed).permutation(items))), {}
    trained_R = trained_items(interactions, user_order(interactions, config.user_order))
    if config.kind == "sequential":
        return index_of_numbers(numbers_in_order(np.concatenate([trained_R, others]))), {}
    adjacency_RR = co_occurrences(interactions, trained_R, config.counted)
    tree = collaborative_tree(adjacency_RR, config.num_clusters, config.leaf_size, seed)
    codes = codes_by_item(interactions.num_items, trained_R, tree, others)
    return index_of_codes(codes), {"splits": tree.splits, "cuts": tree.cuts}
