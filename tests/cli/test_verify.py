"""`tslrec verify`: the recorded ranks are found again, and a changed recommender is noticed."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from support.in_process import RUN, forge, train_here
from tslrec.cli.main import main
from tslrec.evaluation.user_ranks import RANKS
from tslrec.serving.export import export
from tslrec.serving.run_folder import open_run


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifacts of a small run."""
    folder = tmp_path_factory.mktemp("run")
    ended = train_here(*RUN, "method=base", folder=folder)
    assert ended.code == 0, ended.err
    return folder / "artifacts"


def test_every_rank_is_found_again(artifacts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["verify", str(artifacts)])
    lines = capsys.readouterr().out.splitlines()
    metrics = open_run(artifacts).result["metrics"]
    for line, protocol in zip(lines, ("masked", "unmasked"), strict=True):
        assert line.startswith(f"{protocol}: 60 of 60 ranks equal the recorded ones;")
        assert f"NDCG@10 {metrics[f'test/{protocol}/NDCG@10']:.4f}" in line


def test_an_export_is_compared_with_its_run(
    artifacts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export(open_run(artifacts), tmp_path / "out")
    main(["verify", str(tmp_path / "out"), "--run", str(artifacts)])
    assert capsys.readouterr().out.count("60 of 60") == 2


def test_a_rank_that_differs_ends_with_code_1(
    artifacts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(artifacts, tmp_path / "changed")
    path = open_run(tmp_path / "changed").last[1] / RANKS
    ranks = load_file(path)
    ranks["masked"][7] += 1
    save_file(ranks, path)
    forge(path)
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(tmp_path / "changed")])
    assert ended.value.code == 1
    masked, unmasked = capsys.readouterr().out.splitlines()
    assert "59 of 60" in masked
    assert "60 of 60" in unmasked


def test_an_export_without_its_run_is_refused(
    artifacts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export(open_run(artifacts), tmp_path / "out")
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(tmp_path / "out")])
    assert ended.value.code == 2
    assert "no recommender; name a finished run" in capsys.readouterr().err


def test_an_export_of_another_run_is_refused(
    artifacts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export(open_run(artifacts), tmp_path / "out")
    other = train_here(*RUN, "method=base", "seed=1", folder=tmp_path)
    assert other.code == 0, other.err
    with pytest.raises(SystemExit) as ended:
        main(["verify", str(tmp_path / "out"), "--run", str(tmp_path / "artifacts")])
    assert ended.value.code == 2
    run, another = open_run(artifacts).folder.name, open_run(tmp_path / "artifacts").folder.name
    assert f"out: made from base of the run {run}, and not from base of {another}; give" in capsys.readouterr().err
