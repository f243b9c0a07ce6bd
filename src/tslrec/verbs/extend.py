"""Adds the new items of a catalogue that grew to a knowledge store; only they run through the language model.

  tslrec extend artifacts/augment/beauty-fmlp-smollm2_135m-KEY --items items.parquet --item-embeddings FILE.safetensors
  tslrec extend STORE --items … --item-embeddings … trainer=gpu sft.augment_batch_size=1024

Both files are as a run writes them (data/…/items.parquet, backbone/…/item_embeddings.safetensors) and of the whole
catalogue, old items and new. The embeddings of the old items must be those that the store was made from, to the bit: a
backbone trained on with the old rows frozen gives that, one trained anew does not. The result is a store of its own
beside the old one, with the old rows as they were. Killed, the same command goes on.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from tslrec.errors import UserError

SUMMARY = "adds the new items of a grown catalogue to a knowledge store"
SETTABLE = ("trainer", "sft.augment_", "cache=")
"""What the command line may set; all else is the store's own."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("store", type=Path, metavar="STORE", help="its folder in a run's artifacts")
    parser.add_argument("--items", type=Path, required=True, metavar="FILE", help="the item map, Parquet")
    parser.add_argument("--item-embeddings", type=Path, required=True, metavar="FILE", help="safetensors")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="trainer=…, sft.augment_…=…, cache=…")


def run(arguments: argparse.Namespace) -> None:
    """Extends the store, and says what became of it.

    Raises:
        UserError: for what a person can put right, the store and the files not fitting included.
    """
    from rich.console import Console

    from tslrec import ranks
    from tslrec.composition import compose_overrides
    from tslrec.knowledge.extend import extend

    for override in arguments.overrides:
        if not override.startswith(SETTABLE):
            raise UserError(f"{override}: a store is extended as it was made; only {', '.join(SETTABLE)} can be set")
    first = ranks.is_first()
    if not first:
        ranks.fall_silent()
    console = Console(quiet=not first)
    artifact = extend(
        arguments.store,
        arguments.items,
        arguments.item_embeddings,
        compose_overrides(arguments.overrides),
        lambda line: console.print(line, highlight=False, soft_wrap=True),
    )
    numbers = artifact.metrics
    console.print(
        f"{numbers['items_taken_over']:,} items taken over, {numbers['items_computed']:,} computed"
        f"{' earlier' if artifact.reused else ''}: {artifact.folder}",
        highlight=False,
        soft_wrap=True,
    )
