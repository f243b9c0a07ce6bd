"""Codes of the items, from the item vectors of other recommenders.

Shapes: I items (row 0 is padding), C levels, E size of a member's item vectors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file

from tslrec.data.interactions import Interactions
from tslrec.knowledge.item_codes import joined_vectors, permuted, residual_codes
from tslrec.stages.context import StageContext
from tslrec.stages.members import Member
from tslrec.stages.outputs import CODES
from tslrec.stages.restored import restore_member
from tslrec.system.errors import UserError
from tslrec.system.safetensors_io import ID_MAP


def run(context: StageContext) -> dict[str, Any]:
    """Clusters the items by the vectors with which the members score them.

    Writes `codes.safetensors`: `codes`, int64 `[I + 1, C]`, -1 for padding.

    Returns:
        `explained_1`, `explained_2` and so on: the share of the vectors' variance that the levels up to this one
        explain. `distinct_codes`: how many items can be told apart by their codes.

    Raises:
        UserError: if there is no member, a member has no vectors to cluster, or a level has too few distinct ones.
    """
    config, interactions = context.config.codes, context.interactions
    if not context.members:
        raise UserError("members=[]: codes are made from other recommenders; name one, such as members=[model=fmlp]")
    vectors_ID = joined_vectors([item_vectors(member, interactions) for member in context.members])
    codes_IC, explained = residual_codes(vectors_ID, config.sizes, num_starts=config.num_starts, seed=context.seed)
    if config.permuted:
        codes_IC = permuted(codes_IC, context.seed)
    save_file({"codes": codes_IC}, context.folder / CODES, metadata={ID_MAP: interactions.ids.digest})
    shares = {f"explained_{level}": share for level, share in enumerate(explained, start=1)}
    return {**shares, "distinct_codes": len(np.unique(codes_IC[1:], axis=0))}


def item_vectors(member: Member, interactions: Interactions) -> NDArray[np.float32]:
    """The vectors with which a member scores the items, float32 `[I + 1, E]`.

    Raises:
        UserError: if it has a number for each pair of items instead of a vector, or a number is not finite.
    """
    if member.stage == "ease" and member.config.ease.rank is None:
        raise UserError(
            f"members: '{member.words}' has a number for each pair of items, and no item vectors; set ease.rank in it "
            "(ease.rank=64)"
        )
    vectors_IE: NDArray[np.float32] = restore_member(member, interactions).output_IE.float().numpy()
    if not np.isfinite(vectors_IE).all():
        raise UserError(f"members: '{member.words}' has item vectors that are not finite; train it again")
    return vectors_IE
