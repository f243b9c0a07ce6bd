"""Commands where optional packages are not installed: help works, and one line says what to install."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from support.checkout import CHECKOUT
from support.runs import assert_one_line
from support.without_packages import run_without
from tslrec.cli.main import verb_names
from tslrec.system.errors import UserError
from tslrec.system.exits import run_program
from tslrec.system.optional_packages import EXTRAS, line_of_missing

OPTIONAL = [package for packages in EXTRAS.values() for package in packages]
TRAIN = str(CHECKOUT / "train.py")
IMPORTED_AS = {
    "faiss-cpu": "faiss",
    "hydra-core": "hydra",
    "hydra-joblib-launcher": "hydra",
    "hydra-submitit-launcher": "hydra",
    "prometheus-client": "prometheus_client",
    "scikit-learn": "sklearn",
}
"""By distribution, the package that it is imported as, where the names differ."""


def test_help_lists_every_verb(tmp_path: Path) -> None:
    run = run_without(OPTIONAL, "tslrec", "--help", folder=tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    assert [name for name in verb_names() if f"\n  {name} " not in run.stdout] == []


@pytest.mark.parametrize("verb", verb_names())
def test_help_describes_a_verb(tmp_path: Path, verb: str) -> None:
    run = run_without(OPTIONAL, "tslrec", verb, "--help", folder=tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith(f"usage: tslrec {verb}")


@pytest.mark.parametrize(
    ("missing", "command", "package"),
    [
        (OPTIONAL, ["tslrec", "plan"], "hydra"),
        (OPTIONAL, [TRAIN], "hydra"),
        (OPTIONAL, [TRAIN, "--help"], "hydra"),
        (["hydra"], ["tslrec", "audit"], "hydra"),
        (["torch"], [TRAIN, "method=base"], "torch"),
    ],
    ids=["a verb", "training", "help of training", "Hydra alone", "torch alone"],
)
def test_what_needs_a_missing_package_ends_in_one_line(
    tmp_path: Path, missing: list[str], command: list[str], package: str
) -> None:
    line = assert_one_line(run_without(missing, *command, folder=tmp_path))
    assert line == f"error: {package} is not installed; install it with pip install 'tslrec[train]'"
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_command_line_needs_no_package(tmp_path: Path) -> None:
    assert "audt" in assert_one_line(run_without(OPTIONAL, "tslrec", "audt", folder=tmp_path))


@pytest.mark.parametrize("name", ["tslrec.no_such_module", "no_such_package", "torch.no_such_part", None])
def test_a_missing_module_that_no_extra_installs_keeps_its_traceback(name: str | None) -> None:
    error = ModuleNotFoundError("missing", name=name)

    def main() -> None:
        raise error

    assert line_of_missing(error) is None
    with pytest.raises(ModuleNotFoundError) as raised:
        run_program(main)
    assert raised.value is error
    assert not isinstance(raised.value, UserError)


def test_the_extras_install_what_the_table_says() -> None:
    """Every requirement of an extra is a package of the table; a development tool is none."""
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    assert extras.keys() == EXTRAS.keys() | {"dev"}
    for extra, packages in EXTRAS.items():
        names = {distribution(each) for each in extras[extra]}
        lacking = sorted({IMPORTED_AS.get(name, name) for name in names} - {*packages, *EXTRAS["serve"]})
        assert lacking == [], extra
    assert not {distribution(each) for each in project["dependencies"]} & set(OPTIONAL)


def distribution(requirement: str) -> str:
    """The name of a requirement such as `torch>=2.13,<2.14`."""
    return requirement.split(";")[0].split(">=")[0].split("==")[0].strip()
