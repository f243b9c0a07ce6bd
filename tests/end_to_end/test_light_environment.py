"""A wheel of this checkout with the extra `serve` recommends from an ONNX export and serves it: no torch, no Hydra.

The environment is fresh, and its programs run in an empty folder outside of the checkout. The export is made in the
environment of the tests, where everything is installed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest

import tslrec
from support.checkout import CHECKOUT
from support.exported import export_with_onnx
from support.runs import assert_one_line
from support.waiting import HANG_SECONDS, wait_until
from tslrec.cli.main import verb_names

pytestmark = pytest.mark.slow

ABSENT = ("torch", "lightning", "transformers", "deepspeed", "hydra", "omegaconf", "peft", "sklearn", "wandb", "onnx")
"""Packages that a server does without."""
FIND = """
import importlib.util, json, sys

print(json.dumps([name for name in sys.argv[1:] if importlib.util.find_spec(name)]))
"""
RECOMMEND = """
import json, sys
import tslrec

recommender = tslrec.load(sys.argv[1])
found = recommender.recommend(json.loads(sys.argv[2]), k=10)
print(json.dumps({"engine": recommender.engine.name, "rows": found.to_dicts(), "place": tslrec.__file__}))
"""


@dataclass(frozen=True)
class Light:
    """An environment with nothing but the wheel and the extra `serve`.

    Attributes:
        python: its interpreter.
        wheel: what was installed.
        folder: an empty working directory.
    """

    python: Path
    wheel: Path
    folder: Path

    @property
    def environment(self) -> dict[str, str]:
        """Nothing that leads back to the checkout, and one thread."""
        left_out = {"PYTHONPATH", "VIRTUAL_ENV", "PYTHONHOME"}
        return {**{key: value for key, value in os.environ.items() if key not in left_out}, "OMP_NUM_THREADS": "1"}

    def command(self, *arguments: str) -> list[str]:
        """A command of the installed `tslrec`."""
        return [str(self.python.with_name("tslrec")), *arguments]

    def run(self, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs a program to its end."""
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=HANG_SECONDS,
            check=False,
        )

    def ask(self, program: str, *arguments: str) -> Any:
        """What a Python program prints as JSON."""
        run = self.run(str(self.python), "-c", program, *arguments)
        assert run.returncode == 0, run.stderr
        return json.loads(run.stdout)


def pip(*words: str) -> subprocess.CompletedProcess[str]:
    """Runs pip."""
    return subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", *words],
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
        check=False,
    )


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Light:
    """The environment; skips where packages cannot be downloaded."""
    folder = tmp_path_factory.mktemp("light")
    probe = pip("download", "--quiet", "--retries=1", "--no-deps", "--no-cache-dir", f"--dest={folder}", "h11")
    if probe.returncode != 0:
        pytest.skip(f"no package can be downloaded: {(probe.stderr.strip().splitlines() or ['no reason'])[-1]}")
    # A copy, because a build leaves files beside the sources.
    source = folder / "source"
    shutil.copytree(CHECKOUT / "src", source / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(CHECKOUT / name, source)
    built = pip("wheel", "--quiet", "--no-deps", f"--wheel-dir={folder}", str(source))
    assert built.returncode == 0, built.stderr
    (wheel,) = folder.glob("tslrec-*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder / "environment")], check=True)
    python = folder / "environment" / "bin" / "python"
    installed = pip(f"--python={python}", "install", "--quiet", f"{wheel}[serve]")
    assert installed.returncode == 0, installed.stderr
    (folder / "elsewhere").mkdir()
    return Light(python, wheel, folder / "elsewhere")


@pytest.fixture(scope="module")
def exported(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that `tslrec export --onnx` wrote in the environment of this test."""
    return export_with_onnx(finished_run, tmp_path_factory.mktemp("exported") / "model")


@pytest.fixture(scope="module")
def histories(exported: Path) -> list[list[str]]:
    """Histories of one to four known items; the last one has an unknown item alone, so it is a cold user's."""
    raw_ids = tslrec.load(exported, engine="pytorch").catalogue.raw_ids.to_list()[1:]
    return [*(raw_ids[begin : begin + 1 + begin % 4] for begin in range(0, 36, 3)), ["no such item"]]


def assert_pytorch_agrees(rows: Sequence[dict[str, Any]], exported: Path, histories: list[list[str]]) -> None:
    """Asserts that lists have PyTorch's scores at every place, and items that have these scores in PyTorch.

    Items whose scores differ by rounding only may change places.

    Args:
        rows: `user`, `item` and `score`, in the order of users and places.
        exported: the folder.
        histories: the users'.
    """
    recommender = tslrec.load(exported, engine="pytorch")
    expected = recommender.recommend(histories, k=10)
    assert [row["user"] for row in rows] == expected["user"].to_list()
    scored = {}
    for user, history in enumerate(histories[:-1]):
        frame = recommender.score([history], recommender.catalogue.raw_ids.to_list()[1:])
        scored.update({(user, item): score for item, score in zip(frame["item"], frame["score"], strict=True)})
    for row, place in zip(rows, expected.to_dicts(), strict=True):
        if (row["user"], row["item"]) not in scored:
            # The cold user's: without scores, by popularity.
            assert row["item"] == place["item"]
            continue
        assert row["score"] == pytest.approx(place["score"], rel=1e-4, abs=1e-5)
        assert row["score"] == pytest.approx(scored[row["user"], row["item"]], rel=1e-4, abs=1e-5)


def test_the_wheel_has_every_file_of_the_package(light: Light) -> None:
    """A page or a style sheet that `package-data` does not name would be missing."""
    package = CHECKOUT / "src"
    there = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*")
        if path.is_file() and not {"__pycache__"} & set(path.parts) and ".egg-info" not in str(path)
    }
    with zipfile.ZipFile(light.wheel) as wheel:
        assert sorted(there - set(wheel.namelist())) == []


def test_nothing_of_training_is_installed(light: Light) -> None:
    program = (
        "import importlib.util, json, sys; print(json.dumps([n for n in sys.argv[1:] if importlib.util.find_spec(n)]))"
    )
    assert light.ask(program, *ABSENT) == []


def test_help_lists_every_verb(light: Light) -> None:
    run = light.run(*light.command("--help"))
    assert (run.returncode, run.stderr) == (0, "")
    assert [name for name in verb_names() if f"\n  {name} " not in run.stdout] == []


def test_a_verb_that_needs_training_says_what_to_install(light: Light) -> None:
    line = assert_one_line(light.run(*light.command("plan")))
    assert line == "error: hydra is not installed; install it with pip install 'tslrec[train]'"


def test_an_export_recommends_as_pytorch_does(light: Light, exported: Path, histories: list[list[str]]) -> None:
    found = light.ask(RECOMMEND, str(exported), json.dumps(histories))
    assert found["engine"] == "onnxruntime"
    assert CHECKOUT not in Path(found["place"]).parents
    assert_pytorch_agrees(found["rows"], exported, histories)


@pytest.fixture
def server(light: Light, exported: Path, tmp_path: Path) -> Iterator[str]:
    """The address of a server of the light environment; it must end with exit code 0 when it is asked to."""
    log = tmp_path / "server.log"
    with log.open("w", encoding="utf-8") as out:
        process = subprocess.Popen(
            light.command("serve", str(exported), "--port", "0"),
            cwd=light.folder,
            env=light.environment,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_until(lambda: "serving at http" in log.read_text(encoding="utf-8"), "the server's address", process)
        yield re.findall(r"serving at (http://\S+)", log.read_text(encoding="utf-8"))[0]
        process.send_signal(signal.SIGTERM)
        assert process.wait(HANG_SECONDS) == 0, log.read_text(encoding="utf-8")
    finally:
        process.kill()
        process.wait()


def test_an_export_is_served(server: str, exported: Path, histories: list[list[str]]) -> None:
    with urlopen(f"{server}/health", timeout=HANG_SECONDS) as answer:
        assert answer.status == 200
    body = json.dumps({"histories": histories, "k": 10}).encode()
    request = Request(f"{server}/recommend", body, {"content-type": "application/json"})
    with urlopen(request, timeout=HANG_SECONDS) as answer:
        lists = json.load(answer)["lists"]
    rows = [{"user": user, **place} for user, each in enumerate(lists) for place in each["items"]]
    assert_pytorch_agrees(rows, exported, histories)
