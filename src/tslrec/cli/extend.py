"""Adds new items of a catalogue to a knowledge store; only these run through the language model.

  tslrec extend artifacts/augment/beauty-fmlp-smollm2_135m-KEY --items items.parquet --item-embeddings FILE.safetensors
  tslrec extend STORE --items … --item-embeddings … trainer=gpu sft.augment_batch_size=1024

Both files have the format that a run writes (data/…/items.parquet, backbone/…/item_embeddings.safetensors) and cover
the whole catalogue, old items and new. The embeddings of the old items must be bitwise those that the store was made
from: keep training the backbone with the old rows frozen; a newly trained backbone does not work. The result is a
separate store beside the old one, with unchanged rows for the old items. After a kill, the same command resumes.
A store whose language model read titles (sft.item_input) needs those of all items: --titles FILE.
"""

from __future__ import annotations

import argparse
import logging
from pathlib import Path

from tslrec.system.errors import UserError

log = logging.getLogger(__name__)

SUMMARY = "add new items of a catalogue to a knowledge store"
SETTABLE = ("trainer", "sft.augment_", "cache=")
"""Prefixes of the overrides that the command line accepts; all other settings are the store's."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments to its parser."""
    parser.add_argument("store", type=Path, metavar="STORE", help="the store's folder in the artifacts of a run")
    parser.add_argument("--items", type=Path, required=True, metavar="FILE", help="whole item map, Parquet")
    parser.add_argument("--item-embeddings", type=Path, required=True, metavar="FILE", help="of all items, safetensors")
    parser.add_argument("--titles", type=Path, metavar="FILE", help="of all items, CSV or Parquet: item_id, title")
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE", help="trainer=…, sft.augment_…=…, cache=…")


def run(arguments: argparse.Namespace) -> None:
    """Extends the store, and prints how many items it took over and computed.

    Raises:
        UserError: if an override is not accepted, or the store and the files do not fit together.
    """
    from tslrec.pipeline.composition import compose_overrides
    from tslrec.pipeline.extend import extend
    from tslrec.system import processes

    for override in arguments.overrides:
        if not override.startswith(SETTABLE):
            raise UserError(f"{override}: a store is extended as it was made; only {', '.join(SETTABLE)} can be set")
    if not processes.is_rank_zero():
        processes.mute_rank()
    artifact = extend(
        arguments.store,
        arguments.items,
        arguments.item_embeddings,
        compose_overrides(arguments.overrides),
        arguments.titles,
    )
    numbers = artifact.metrics
    log.info(
        f"{numbers['items_taken_over']:,} items taken over, {numbers['items_computed']:,} computed"
        f"{' earlier' if artifact.reused else ''}: {artifact.folder}"
    )
