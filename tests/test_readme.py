"""The pages say what is true: commands compose, targets and paths exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir

from conftest import CHECKOUT
from tslrec.composition import register_schema, to_config

PAGES = ("README.md", "CONTRIBUTING.md", "RESULTS.md")
TEXTS = {page: (CHECKOUT / page).read_text(encoding="utf-8") for page in PAGES}
COMMANDS = sorted(
    {
        command.split("#")[0].strip()
        for text in TEXTS.values()
        for command in re.findall(r"(?:python train\.py|tslrec audit) ([^`\n]+)", text)
        if "--help" not in command and "=x" not in command
    }
)


def combinations(command: str) -> list[list[str]]:
    """Each run of a command line; only the first of a sweep's values, the others being choices of the same group."""
    words = shlex.split(command)
    if "-m" not in words:
        return [words]
    words.remove("-m")
    longest = max(word.count(",") for word in words) + 1
    return [
        [
            f"{key}={values[min(i, len(values) - 1)]}"
            for key, values in ((w.split("=")[0], w.split("=")[1].split(",")) for w in words)
        ]
        for i in range(longest)
    ]


def test_there_are_commands() -> None:
    assert any("experiment=tslrec_fmlp_beauty" in command for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_pages_composes(command: str) -> None:
    register_schema()
    with initialize_config_dir(str(CHECKOUT / "configs"), version_base="1.3"):
        for overrides in combinations(command):
            to_config(compose("train", overrides=overrides))


def test_the_make_targets_of_the_pages_exist() -> None:
    makefile = (CHECKOUT / "Makefile").read_text()
    named = {target for text in TEXTS.values() for target in re.findall(r"`?\bmake ([a-z][a-z-]*)`", text)}
    assert {"run", "test", "setup"} <= named
    for target in named:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_the_paths_of_the_pages_exist() -> None:
    paths = {
        path
        for text in TEXTS.values()
        for path in re.findall(r"`((?:src|tests|configs)/[\w./]+)`", text)
        if "/x." not in path and not any(part.isupper() for part in Path(path).parts)
    }
    assert paths
    for path in paths:
        assert (CHECKOUT / path).exists(), path


def test_the_files_of_the_tree_exist() -> None:
    tree = TEXTS["README.md"].split("## Where things are")[1].split("```")[1]
    names = re.findall(r"[\w/]+(?:\.py|/)(?=\s|$)", tree)
    assert len(names) > 15
    for name in names:
        assert (CHECKOUT / name).exists() or (CHECKOUT / "src" / "tslrec" / name).exists(), name


def test_no_page_has_a_gap() -> None:
    for page, text in TEXTS.items():
        assert not re.search(r"@[A-Z]+@|TODO|TBD", text), page
