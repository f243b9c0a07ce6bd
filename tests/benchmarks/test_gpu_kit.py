"""The kit for a machine without a network: volumes below a limit, and the same files again at the other end."""

from __future__ import annotations

import json
import random
import tarfile
from pathlib import Path

import pytest

import gpu_kit
from gpu_kit_parts.errors import KitError
from gpu_kit_parts.packing import MIB, RESERVE_BYTES
from gpu_kit_parts.pieces import Piece

CHECKOUT_BYTES = MIB
ROOM_BYTES = 2 * MIB
LIMIT = str((CHECKOUT_BYTES + ROOM_BYTES + RESERVE_BYTES) / MIB)
"""For `--limit`, with which a volume has that much room."""


@pytest.fixture
def pieces(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Two pieces of random bytes, which no compression makes smaller, in the place of the real ones."""
    draw = random.Random(0)
    content = {"small": draw.randbytes(300_000), "large": draw.randbytes(5 * MIB)}

    def maker(name: str) -> Piece:
        def make(folder: Path) -> None:
            (folder / "inside").mkdir()
            (folder / "inside" / "file").write_bytes(content[name])

        return Piece(make, "a test")

    monkeypatch.setattr(gpu_kit, "PIECES", {name: maker(name) for name in content})
    monkeypatch.setattr(gpu_kit, "tracked_bytes", lambda: CHECKOUT_BYTES)
    return content


def volumes(folder: Path) -> list[Path]:
    return sorted(folder.glob("volume-*"))


def test_volumes_stay_below_the_limit_and_give_the_same_files_in_any_order(
    pieces: dict[str, bytes], tmp_path: Path
) -> None:
    gpu_kit.main(["pack", str(tmp_path / "out"), "--limit", LIMIT])
    packed = volumes(tmp_path / "out")
    assert len(packed) == 3
    for volume in packed:
        assert CHECKOUT_BYTES + sum(file.stat().st_size for file in volume.iterdir()) <= float(LIMIT) * MIB
    for volume in reversed(packed):
        gpu_kit.main(["unpack", str(volume), str(tmp_path / "kit")])
    for name, content in pieces.items():
        assert (tmp_path / "kit" / name / "inside" / "file").read_bytes() == content
    assert list((tmp_path / "kit" / "parts").iterdir()) == []


def test_a_piece_waits_for_its_other_parts(
    pieces: dict[str, bytes], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gpu_kit.main(["pack", str(tmp_path / "out"), "--limit", LIMIT])
    gpu_kit.main(["unpack", str(volumes(tmp_path / "out")[0]), str(tmp_path / "kit")])
    assert (tmp_path / "kit" / "small").is_dir()
    assert not (tmp_path / "kit" / "large").exists()
    assert "unpack the other volumes, too" in capsys.readouterr().out


def test_a_damaged_part_is_refused(pieces: dict[str, bytes], tmp_path: Path) -> None:
    gpu_kit.main(["pack", str(tmp_path / "out"), "--limit", LIMIT])
    first, *others = volumes(tmp_path / "out")
    for file in first.glob("large.*"):
        file.write_bytes(bytes(file.stat().st_size))
    for volume in others:
        gpu_kit.main(["unpack", str(volume), str(tmp_path / "kit")])
    with pytest.raises(KitError, match="large: not what was packed"):
        gpu_kit.main(["unpack", str(first), str(tmp_path / "kit")])
    assert not (tmp_path / "kit" / "large").exists()


def test_a_limit_that_the_checkout_takes_up_is_refused(pieces: dict[str, bytes], tmp_path: Path) -> None:
    with pytest.raises(KitError, match="the checkout alone takes it up"):
        gpu_kit.main(["pack", str(tmp_path / "out"), "--limit", "1"])


def test_a_folder_that_is_no_volume_is_refused(tmp_path: Path) -> None:
    (tmp_path / "volume.json").write_text(json.dumps({}))
    with pytest.raises(KitError, match="name a folder that pack has written"):
        gpu_kit.main(["unpack", str(tmp_path), str(tmp_path / "kit")])


def test_a_python_without_extraction_filters_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(tarfile, "data_filter")
    with pytest.raises(KitError, match=r"unpack with 3\.11\.4 or newer"):
        gpu_kit.main(["unpack", str(tmp_path / "volume"), str(tmp_path / "kit")])
    assert not (tmp_path / "kit").exists()
