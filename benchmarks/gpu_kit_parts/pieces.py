"""The pieces of the kit: what is packed, and why."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gpu_kit_parts.errors import KitError
from gpu_kit_parts.packages import make_quantized, make_site, make_weights

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"
DATA = ("beauty/beauty.txt", "beauty/titles.csv", "ml-1m/ml-1m.txt", "ml-1m/titles.csv")


@dataclass(frozen=True)
class Piece:
    """One part of the kit.

    Attributes:
        make: writes its files into a folder.
        why: what needs it.
        usual: whether it is packed where no pieces are named.
    """

    make: Callable[[Path], None]
    why: str
    usual: bool = True


def make_peers(folder: Path) -> None:
    """The packages of RecBole and RecTools.

    Raises:
        KitError: if they cannot be had.
    """
    script = ROOT / "benchmarks" / "gpu_peers.sh"
    folder.rmdir()
    if subprocess.run(["sh", str(script), str(folder)], check=False).returncode != 0:
        raise KitError(f"{script}: failed; its message is above")


def make_data(folder: Path) -> None:
    copy_from(SHARED / "data", DATA, folder)


def make_golden(folder: Path) -> None:
    """The reference files of the backbones and of the metrics."""
    copy_from(SHARED / "golden", [path.name for path in sorted((SHARED / "golden").glob("*.npz"))], folder)


def copy_from(source: Path, names: Sequence[str], folder: Path) -> None:
    """Copies files with their subfolders.

    Raises:
        KitError: if one is missing.
    """
    for name in names:
        if not (source / name).is_file():
            raise KitError(f"{source / name}: not there; put it there, or leave the piece out by naming --piece others")
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source / name, folder / name)


PIECES = {
    "site": Piece(make_site, "hydra, lightning, transformers, peft, deepspeed, polars, …"),
    "data": Piece(make_data, "the raw files and titles of Beauty and MovieLens-1M"),
    "golden": Piece(make_golden, "the reference files of the tests"),
    "peers": Piece(make_peers, "RecBole and RecTools: part backbones"),
    "weights": Piece(make_weights, "SmolLM2-135M: the cells with a language model"),
    "quantized": Piece(make_quantized, "bitsandbytes: 8- and 4-bit weights", usual=False),
}
"""In the order in which they go into the volumes."""
