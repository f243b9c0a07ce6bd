"""What a GPU machine without a network needs beside this checkout, in volumes that are small enough to carry.

    python benchmarks/gpu_kit.py pack .gpu --limit 64        here: writes .gpu/volume-1, .gpu/volume-2, …
    python3 benchmarks/gpu_kit.py unpack .gpu/volume-1 KIT   there: once for each volume, in any order

A piece of the kit (`PIECES`) is an archive. What the first parts of the benchmark need lies in the first volume; a
piece that does not fit into what is left of a volume goes on in the next one. A volume and the files of this checkout
that git knows stay below the limit together. `unpack` puts a piece into KIT as soon as all of its parts are there, and
needs nothing but Python.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from gpu_kit_parts.errors import KitError
from gpu_kit_parts.packing import MIB, RESERVE_BYTES, archive, tracked_bytes, write_volumes
from gpu_kit_parts.pieces import PIECES
from gpu_kit_parts.unpacking import unpack


def main(words: Sequence[str]) -> None:
    arguments = parse(words)
    if arguments.verb == "unpack":
        unpack(arguments.volume, arguments.kit)
        return
    names = arguments.piece or [name for name, piece in PIECES.items() if piece.usual]
    archives = {name: archive(name, PIECES[name], arguments.out / "pieces", fresh=arguments.fresh) for name in names}
    tracked = tracked_bytes()
    room = int(arguments.limit * MIB) - tracked - RESERVE_BYTES
    print(f"{'checkout':12} {tracked / MIB:8.1f} MiB  travels with every volume")
    for name, path in archives.items():
        print(f"{name:12} {path.stat().st_size / MIB:8.1f} MiB  {PIECES[name].why}")
    for number, size in enumerate(write_volumes(archives, arguments.out, room), start=1):
        total = (size + tracked) / MIB
        print(f"volume-{number:<5} {size / MIB:8.1f} MiB  {total:.1f} with the checkout, below {arguments.limit:g}")


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(dest="verb", required=True)
    pack = verbs.add_parser("pack", help="write the volumes")
    pack.add_argument("out", type=Path, help="a folder that git ignores")
    pack.add_argument("--limit", type=float, default=64, help="MiB that may be carried at a time; default 64")
    pack.add_argument("--piece", action="append", choices=PIECES, help="default: all but quantized")
    pack.add_argument("--fresh", action="store_true", help="make pieces again that are there")
    unpacking = verbs.add_parser("unpack", help="put a volume's pieces into the kit")
    unpacking.add_argument("volume", type=Path)
    unpacking.add_argument("kit", type=Path)
    return parser.parse_args(words)


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KitError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
