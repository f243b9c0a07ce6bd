"""What a person meets at the command line: help without heavy imports, and one line where something is wrong."""

from __future__ import annotations

from pathlib import Path

import pytest

from support.checkout import CHECKOUT
from support.imported_packages import Ended, run_and_list_imports
from support.runs import assert_one_line, train
from tslrec.cli.main import verb_names

HELP = [["train.py", "--help"], ["train.py", "--cfg", "job"], ["tslrec", "--help"]]
HELP += [["tslrec", verb, "--help"] for verb in verb_names()]
TYPOS = [["train.py", "model.hiden_size=3"], ["train.py", "model=sasrecc"], ["tslrec", "audt"]]


def run_command(command: list[str], folder: Path) -> Ended:
    """Runs `train.py` or `tslrec` in a folder, and notes what it imports."""
    program, *arguments = command
    return run_and_list_imports(
        str(CHECKOUT / program) if program == "train.py" else program, *arguments, folder=folder
    )


@pytest.mark.parametrize("command", HELP, ids=" ".join)
def test_help_imports_no_heavy_package(tmp_path: Path, command: list[str]) -> None:
    ended = run_command(command, tmp_path)
    assert (ended.code, ended.heavy) == (0, [])
    assert command[0] == "train.py" or ended.out.startswith("usage: tslrec")


@pytest.mark.parametrize("command", TYPOS, ids=" ".join)
def test_a_typo_is_refused_without_a_heavy_import(tmp_path: Path, command: list[str]) -> None:
    ended = run_command(command, tmp_path)
    assert (ended.code, ended.heavy) == (2, [])


def test_a_heavy_import_is_noticed(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text("import numpy\nraise SystemExit(3)\n")
    ended = run_and_list_imports(str(program), folder=tmp_path)
    assert (ended.code, ended.heavy) == (3, ["numpy"])


def test_help_names_every_group_and_common_settings(tmp_path: Path) -> None:
    run = train("--help", folder=tmp_path)
    assert run.returncode == 0
    for word in (
        "experiment=quickstart",
        "data.path=FILE",
        "method: ablation_own_embeddings, ",
        " base, ci, ",
        "model: bert4rec, caser, fmlp, fpmc, gru4rec, lru, sasrec",
    ):
        assert word in run.stdout
    assert max(len(line) for line in run.stdout.splitlines() if ":" not in line) <= 120


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["model.hiden_size=3"], ["model.hiden_size", "--cfg job"]),
        (["model=sasrecc"], ["sasrecc", "sasrec", "--help"]),
        (["experiment=tslrec_fmlp_bueaty"], ["tslrec_fmlp_bueaty", "tslrec_fmlp_beauty"]),
        (["training.max_len=abc"], ["training.max_len", "abc", "whole number"]),
        (["trainer=gpu"], ["trainer=gpu", "trainer=cpu"]),
        (["trainer.strategy=ddp_spawn"], ["trainer.strategy=ddp_spawn", "set it to ddp"]),
        (["method=ci", "fusion=gate"], ["fusion=gate", "augment"]),
        (["data=csv"], ["data.path"]),
        (["data=csv", "data.path=nowhere.csv", "method=base"], ["nowhere.csv"]),
        (["llm=llama2_13b"], ["meta-llama/Llama-2-13b-hf"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_is_wrong_ends_in_one_line(tmp_path: Path, arguments: list[str], words: list[str]) -> None:
    if arguments == ["trainer=gpu"]:
        import torch

        if torch.cuda.is_available():
            pytest.skip("this machine has a GPU")
    line = assert_one_line(train(*arguments, folder=tmp_path))
    for word in words:
        assert word in line
    assert not (tmp_path / "artifacts" / "backbone").exists()
