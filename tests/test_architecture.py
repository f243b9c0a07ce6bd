"""The rooms of the house, and that the contracts on their imports hold and can fail."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from support.checkout import CHECKOUT

ROOMS = {
    *("system", "data", "evaluation", "models", "training", "llm", "knowledge", "stages", "pipeline", "serving"),
    *("reports", "cli", "settings"),
}
CONTRACTS = {"layers", "acyclic", "plain-models", "light-serving"}


def contracts(checkout: Path) -> dict[str, dict[str, object]]:
    settings = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))
    return {each["id"]: each for each in settings["tool"]["importlinter"]["contracts"]}


def lint(checkout: Path) -> subprocess.CompletedProcess[str]:
    """Checks the contracts on the sources of a checkout, not on the installed ones."""
    return subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--no-logo"],
        cwd=checkout,
        env={"PYTHONPATH": str(checkout / "src"), "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The sources and the settings, to be changed."""
    shutil.copytree(CHECKOUT / "src", tmp_path / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    shutil.copy(CHECKOUT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_package_is_its_rooms_and_two_files() -> None:
    package = CHECKOUT / "src" / "tslrec"
    folders = {path.name for path in package.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == ROOMS
    assert {path.name for path in package.glob("*.py")} == {"__init__.py", "config.py"}


def test_the_contracts_are_there_and_name_every_room() -> None:
    found = contracts(CHECKOUT)
    assert set(found) == CONTRACTS
    layers = found["layers"]
    assert layers["exhaustive"]
    named = {name.strip() for layer in layers["layers"] for name in str(layer).split("|")}  # type: ignore[attr-defined]
    assert named == {*ROOMS, "config"}


def test_the_contracts_hold(copy: Path) -> None:
    linted = lint(copy)
    assert linted.returncode == 0, linted.stdout + linted.stderr
    assert "4 kept, 0 broken" in linted.stdout


@pytest.mark.parametrize(
    ("file", "line", "broken"),
    [
        ("data/windows.py", "import tslrec.pipeline.run", "Rooms import downwards only"),
        ("data/windows.py", "import tslrec.evaluation.protocols", "Rooms import downwards only"),
        ("models/dropout.py", "import lightning", "Models know neither Lightning nor Hydra"),
        ("system/errors.py", "import tslrec.system.exits", "No circle of files or folders"),
        ("attic/__init__.py", "", "Rooms import downwards only"),
    ],
    ids=["upwards", "beside", "lightning in a model", "a circle", "a room without a place"],
)
def test_what_breaks_a_contract_fails(file: str, line: str, broken: str, copy: Path) -> None:
    path = copy / "src" / "tslrec" / file
    path.parent.mkdir(exist_ok=True)
    path.write_text((path.read_text(encoding="utf-8") if path.exists() else "") + f"\n{line}\n", encoding="utf-8")
    linted = lint(copy)
    assert linted.returncode != 0
    assert broken in linted.stdout + linted.stderr, linted.stdout + linted.stderr
