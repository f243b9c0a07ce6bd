"""Builds and runs a backbone or a fusion with stand-ins for the data, to find out whether their settings fit together.

Large modules are built on PyTorch's meta device, where a tensor has a shape and no numbers, so that the sizes cost
nothing. Small ones are built on the CPU: the first use of the meta device imports for a second. So are those that need
numbers while they are built.

Shapes: B sequences, L positions, I items (row 0 is padding), D hidden size, H size of an item's knowledge.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tslrec.models.backbones.base import Backbone, PositionBackbone
from tslrec.models.item_embedding import IdEmbedding
from tslrec.stages.building import build_backbone, build_fusion
from tslrec.stages.knowledge_width import takes_width

Result = TypeVar("Result")

NUM_ITEMS, NUM_USERS, NUM_CLUSTERS, KNOWLEDGE_SIZE = 4, 3, 2, 6
"""I, U, K and H of the stand-ins."""

SMALL = 2**25
"""The product of the three largest numbers of a section up to which a module is small."""

LONGEST = 8
"""Length of the stand-ins' sequences at most."""


class Unfit(Exception):  # noqa: N818 - what it says is not an error of the program
    """A module that its settings cannot make; its text is the reason on one line."""


def try_backbone(
    model: Mapping[str, Any], hidden_size: int, max_len: int, num_items: int = NUM_ITEMS, num_users: int = NUM_USERS
) -> int:
    """Builds a backbone, and runs a forward pass of it.

    Args:
        model: the `model` section.
        hidden_size: D.
        max_len: the longest input, in items.
        num_items: I.
        num_users: U.

    Returns:
        Bytes of its parameters and buffers.

    Raises:
        Unfit: if that fails.
    """

    def make() -> int:
        items = IdEmbedding(num_items, hidden_size)
        backbone = build_backbone(model, items, num_users=num_users, max_len=max_len)
        run_backbone(backbone, min(max_len, LONGEST))
        return bytes_of(backbone)

    return attempt(make, small=is_small([*model.values(), hidden_size, max_len]))


def try_fusion(fusion: Mapping[str, Any], inputs: Sequence[str], hidden_size: int, num_items: int = NUM_ITEMS) -> int:
    """Builds a fusion, and computes its table.

    Args:
        fusion: the `fusion` section.
        inputs: the names of the arrays that it asks for.
        hidden_size: D.
        num_items: I.

    Returns:
        Bytes of its parameters and buffers.

    Raises:
        Unfit: if that fails.
    """

    def make() -> int:
        knowledge_size = hidden_size if takes_width(fusion) else KNOWLEDGE_SIZE
        arrays = {name: stand_in(name, num_items, knowledge_size) for name in inputs}
        items = build_fusion(fusion, arrays, num_items=num_items, hidden_size=hidden_size)
        check_table(items.table(), num_items, hidden_size)
        return bytes_of(items)

    return attempt(make, small=is_small([*fusion.values(), hidden_size]))


def is_small(values: Sequence[Any]) -> bool:
    """Whether a module with these settings takes little memory: by the product of the three largest numbers."""
    numbers = sorted((abs(each) for each in values if isinstance(each, int)), reverse=True)
    return math.prod(numbers[:3]) <= SMALL


def run_backbone(backbone: Backbone, length: int) -> None:
    """A forward pass over two sequences, and the products with the output table.

    Args:
        backbone: the backbone.
        length: of the longer sequence.
    """
    items_BL = torch.ones(2, length, dtype=torch.int64)
    lengths_B, users_B = torch.tensor([length, 1]), torch.tensor([0, 1])
    if torch.get_default_device().type == "meta":
        lengths_B, users_B = torch.empty_like(lengths_B), torch.empty_like(users_B)
    users_BE = backbone.train()(items_BL, lengths_B, users_B)
    users_BE @ backbone.output_table(backbone.item_embedding.table()).T
    if isinstance(backbone, PositionBackbone):
        backbone.all_positions(items_BL, lengths_B, users_B)


def check_table(table_ID: Tensor, num_items: int, hidden_size: int) -> None:
    """Compares the shape of an item table with what it must be.

    Raises:
        ValueError: if it differs.
    """
    if tuple(table_ID.shape) != (num_items + 1, hidden_size):
        raise ValueError(f"its item table is {tuple(table_ID.shape)}, not {(num_items + 1, hidden_size)}")


def stand_in(name: str, num_items: int, knowledge_size: int = KNOWLEDGE_SIZE) -> Tensor:
    """An array in the place of one that a stage makes for fusions."""
    if name == "clusters_I":
        return torch.arange(-1, num_items) % NUM_CLUSTERS - (torch.arange(num_items + 1) == 0).long() * NUM_CLUSTERS
    return torch.randn(num_items + 1, knowledge_size)


def bytes_of(module: nn.Module) -> int:
    """Bytes of a module's parameters and buffers."""
    return sum(each.numel() * each.element_size() for each in (*module.parameters(), *module.buffers()))


def attempt(make: Callable[[], Result], *, small: bool) -> Result:
    """Calls a function with the meta device as the default one, or the CPU if it is small or needs numbers.

    torch's random state is left unchanged.

    Args:
        make: the function.
        small: whether it takes little memory.

    Raises:
        Unfit: if it fails.
    """
    if not small:
        try:
            with quietly(), torch.device("meta"):
                return make()
        except Exception as error:
            if not needs_numbers(error):
                raise Unfit(reason(error)) from error
    try:
        with quietly(), torch.random.fork_rng(devices=[]):
            return make()
    except Exception as error:
        raise Unfit(reason(error)) from error


def needs_numbers(error: Exception) -> bool:
    """Whether an error only says that a tensor on the meta device has no numbers."""
    return "meta" in str(error).lower()


def reason(error: BaseException) -> str:
    """An exception's first line, with its kind where the text alone says little."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    if isinstance(error, AssertionError) and not text:
        return "it makes no backbone and no item embedding"
    return text if isinstance(error, ValueError | RuntimeError) and text else f"{type(error).__name__}: {text}"


@contextmanager
def quietly() -> Any:
    """While active, warnings are not shown: torch's, of tensors without elements."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
