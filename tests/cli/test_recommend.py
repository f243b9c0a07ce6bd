"""`tslrec recommend`: what it prints and writes, the recorded metrics again, and one line for what is wrong."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from safetensors.numpy import load_file

import tslrec
from support.in_process import RUN, train_here
from support.runs import result_of, run_environment
from support.waiting import HANG_SECONDS
from tslrec.cli.main import main
from tslrec.serving.export import export
from tslrec.serving.histories import UNKNOWN_ITEMS
from tslrec.serving.recommender import COLD
from tslrec.serving.run_folder import open_run
from tslrec.serving.streaming import stream


@pytest.fixture
def model(finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The artifacts folder with a single run; the working directory and the terminal are the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    return str(finished_run / "artifacts")


@pytest.fixture(scope="session")
def exported(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The run as a folder of `tslrec export`."""
    folder = tmp_path_factory.mktemp("exported") / "model"
    export(open_run(finished_run / "artifacts"), folder)
    return str(folder)


@pytest.fixture(scope="module")
def runs(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The working directory of a run of each method."""
    folder = tmp_path_factory.mktemp("base")
    ended = train_here(*RUN, "method=base", folder=folder)
    assert ended.code == 0, ended.err
    return {"base": folder, "tslrec": finished_run}


def refusal(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The line with which a command ends that cannot work."""
    with pytest.raises(SystemExit) as ended:
        main(["recommend", *arguments])
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert len(printed.err.splitlines()) == 1
    assert printed.err.startswith("error: ")
    return printed.err


def read(path: Path) -> pl.DataFrame:
    """A file of recommendations."""
    readers: dict[str, Callable[[Path], pl.DataFrame]] = {".parquet": pl.read_parquet, ".csv": pl.read_csv}
    return readers.get(path.suffix, pl.read_ndjson)(path)


def ids_of(model: str) -> tuple[list[str], list[str]]:
    """The raw ids of users and items of the run's data set."""
    ids = open_run(Path(model)).interactions().ids
    return list(ids.users), list(ids.items[1:])


def test_a_history_gives_a_table_with_titles(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, third, *_ = ids_of(model)[1]
    Path("titles.csv").write_text(f"item_id,title\n{third},[bold]A tale\n")
    Path("only.txt").write_text(f"{third}\n\n{second}\n")
    limits = ["-k", "3", "--titles", "titles.csv", "--only", "only.txt"]
    main(["recommend", model, "--history", f"{first} {second}", *limits])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["user", "rank", "item", "title", "score"]
    (row,) = [line for line in lines if third in line]
    assert row.split()[:2] == ["1", "1"]
    assert "[bold]A tale" in row
    # The second item is in the history.
    assert len(lines) == 3
    assert lines[-1] == "1 user; items of the history are left out: the ranking protocol masked"


def test_the_table_shows_ten_users_and_says_how_many_more(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    main(["recommend", model, "--all-users", "--keep-seen", "-k", "2"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 10 * 2 + 2
    assert lines[-2] == "10 users; items of the history are not left out: the ranking protocol unmasked"
    assert lines[-1] == "50 more users; --out FILE writes all"
    users, _ = ids_of(model)
    assert [line.split()[0] for line in lines[1:21:2]] == users[:10]


def test_what_is_dropped_and_cold_is_counted(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    item = ids_of(model)[1][4]
    main(["recommend", model, "--history", f"{item} nothing", "--history", "nobody", "-k", "1"])
    printed = capsys.readouterr().out
    assert printed.splitlines()[2].split()[-1] == "popular"
    assert "2 unknown items dropped; 1 user without a known item (popular)" in printed
    main(["recommend", model, "--history", "nobody", "--cold", "skip"])
    assert "1 user without a known item (skip)" in capsys.readouterr().out


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_a_file_holds_what_the_recommender_gives(suffix: str, model: str, capsys: pytest.CaptureFixture[str]) -> None:
    _, items = ids_of(model)
    histories = pl.DataFrame({"user": ["a", "b", "c"], "items": [items[:3], items[7:8], items[30:]]})
    histories.write_parquet("histories.parquet")
    out = f"recs.{suffix}"
    main(["recommend", model, "--histories", "histories.parquet", "-k", "4", "--out", out, "--shard-size", "2"])
    found = read(Path(out)).cast({"score": pl.Float32, "rank": pl.Int32})
    wanted = tslrec.load(model).recommend(histories, 4)
    assert found.drop("score").equals(wanted.drop("score"))
    np.testing.assert_allclose(found["score"], wanted["score"], rtol=1e-5, atol=1e-6)
    assert capsys.readouterr().out.splitlines() == [
        "3 users; items of the history are left out: the ranking protocol masked",
        f"{out}: 12 rows of user, item, score and rank",
    ]
    assert sorted(path.name for path in Path().iterdir()) == ["histories.parquet", out]


@pytest.mark.parametrize("name", ["users.txt", "users.csv", "users.parquet"])
def test_users_of_the_run_are_named_in_a_file(name: str, model: str) -> None:
    users, items = ids_of(model)
    wanted = [users[7], users[2], users[7]]
    if name == "users.txt":
        Path(name).write_text("".join(f"{user}\n" for user in wanted))
    elif name == "users.csv":
        pl.DataFrame({"age": [1, 2, 3], "user": wanted}).write_csv(name)
    else:
        pl.DataFrame({"user": wanted}).write_parquet(name)
    main(["recommend", model, "--users", name, "-k", "5", "--out", "recs.parquet"])
    interactions = open_run(Path(model)).interactions()
    whole = {user: [items[item - 1] for item in interactions.sequence(users.index(user))] for user in wanted[:2]}
    found, one_call = pl.read_parquet("recs.parquet"), tslrec.load(model).recommend(whole, 5)
    assert found.drop("score").equals(one_call.drop("score"))


@pytest.mark.parametrize("method", ["base", "tslrec"])
@pytest.mark.parametrize("protocol", ["masked", "unmasked"])
def test_left_out_items_reproduce_the_recorded_metrics_and_ranks(
    method: str, protocol: str, runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = str(runs[method] / "artifacts")
    keep = ["--keep-seen"] if protocol == "unmasked" else []
    arguments = ["--method", method, "--all-users", "--leave-out", "1", "-k", "20", "--shard-size", "17"]
    main(["recommend", model, *arguments, *keep, "--out", "recs.parquet"])
    run = open_run(Path(model), method)
    interactions = run.interactions()
    ids = interactions.ids
    tested = interactions.evaluated_users
    targets = pl.DataFrame(
        {
            "row": tested,
            "user": [ids.users[user] for user in tested],
            "item": [ids.items[interactions.sequence(user)[-1]] for user in tested],
        }
    )
    hits = targets.join(pl.read_parquet("recs.parquet"), on=["user", "item"], how="left", maintain_order="left")
    (recorded,) = [each for each in result_of(runs[method])["results"] if each["method"] == method]
    for k in (5, 10):
        ranks = hits.filter(pl.col("rank") <= k)["rank"].to_list()
        hit_rate, ndcg = len(ranks) / len(tested), sum(1 / math.log2(rank + 1) for rank in ranks) / len(tested)
        metrics = recorded["metrics"]
        assert hit_rate == pytest.approx(metrics[f"test/{protocol}/HR@{k}"], rel=0, abs=1e-7)
        assert ndcg == pytest.approx(metrics[f"test/{protocol}/NDCG@{k}"], rel=0, abs=1e-7)
    kept = load_file(run.last[1] / "ranks.safetensors")
    assert kept["users"].tolist() == tested.tolist()
    seen = np.where(kept[protocol] <= 20, kept[protocol], 0)
    assert hits["rank"].fill_null(0).to_list() == seen.tolist()


def test_an_export_recommends_the_same_and_knows_no_users(
    model: str, exported: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _, items = ids_of(model)
    pl.DataFrame({"user": [1, 2], "items": [items[:3], items[5:9]]}).write_parquet("histories.parquet")
    for name, folder in (("run", model), ("export", exported)):
        main(["recommend", folder, "--histories", "histories.parquet", "--out", f"{name}.parquet"])
    of_run, of_export = pl.read_parquet("run.parquet"), pl.read_parquet("export.parquet")
    assert of_run.equals(of_export)
    capsys.readouterr()
    assert "an export knows no users; name the run" in refusal(capsys, exported, "--all-users")
    assert "an export knows no users; name the run" in refusal(capsys, exported, "--users", "users.txt")


def write_bad_files() -> None:
    """One file of each kind of fault, in the working directory."""
    for suffix in ("parquet", "csv", "jsonl", "txt"):
        Path(f"empty.{suffix}").touch()
        Path(f"noise.{suffix}").write_bytes(bytes(range(128, 256)) * 9)
    Path("columns.csv").write_text("customer,product\n1,2\n")
    Path("header.csv").write_text("user,item\n")
    Path("hole.csv").write_text("user,item\na,\n")
    pl.DataFrame({"user": [1], "thing": [2]}).write_parquet("columns.parquet")
    pl.DataFrame({"user": [1], "items": ["a b"]}).write_parquet("text.parquet")
    pl.DataFrame({"user": [1], "items": [[1.5]]}).write_parquet("float.parquet")
    pl.DataFrame({"user": [None], "items": [["a"]]}).write_parquet("null.parquet")
    Path("word.jsonl").write_text('{"user": 1, "items": ["a"]}\nword\n')
    Path("key.jsonl").write_text('{"user": 1}\n')
    Path("true.jsonl").write_text('{"user": 1, "items": [true]}\n')
    Path("nobody.txt").write_text("nobody\n")
    Path("done.csv").touch()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["--histories", "--all-users", "required"]),
        (["--all-users", "--history", "a"], ["not allowed with"]),
        (["--histories", "nowhere.csv"], ["nowhere.csv: there is no such file"]),
        (["--histories", "nobody.txt"], ["nobody.txt: name a file that ends in .parquet, .csv, .jsonl"]),
        (["--histories", "empty.parquet"], ["empty.parquet: not readable as parquet"]),
        (["--histories", "empty.csv"], ["empty.csv: not readable as csv"]),
        (["--histories", "empty.jsonl"], ["empty.jsonl: holds no history"]),
        (["--histories", "header.csv"], ["header.csv: holds no history"]),
        (["--histories", "noise.parquet"], ["noise.parquet: not readable as parquet"]),
        (["--histories", "noise.csv"], ["noise.csv: "]),
        (["--histories", "noise.jsonl"], ["noise.jsonl: not readable as jsonl"]),
        (["--histories", "columns.csv"], ["columns.csv: has the columns customer, product; name them user and item"]),
        (["--histories", "columns.parquet"], ["has the columns user, thing; name them user and items (lists) or"]),
        (["--histories", "text.parquet"], ["text.parquet: the column items holds String, not lists"]),
        (["--histories", "float.parquet"], ["holds Float64; ids are text or integers"]),
        (["--histories", "null.parquet"], ["a user is null"]),
        (["--histories", "hole.csv"], ["an id is null"]),
        (["--histories", "word.jsonl"], ["word.jsonl: line 2: no object with user and items"]),
        (["--histories", "key.jsonl"], ["key.jsonl: line 1: no object with user and items"]),
        (["--histories", "true.jsonl"], ["true.jsonl: line 1: user must be an id"]),
        (["--users", "nowhere.txt"], ["nowhere.txt: there is no such file"]),
        (["--users", "empty.txt"], ["empty.txt: names no id"]),
        (["--users", "noise.txt"], ["noise.txt: not readable as text"]),
        (["--users", "empty.csv"], ["empty.csv: not readable"]),
        (["--users", "columns.csv"], ["columns.csv: has the columns customer, product; a column user is needed"]),
        (["--users", "nobody.txt"], ["nobody.txt: the run's data set has no user 'nobody'"]),
        (["--all-users", "--only", "nowhere.txt"], ["nowhere.txt: there is no such file"]),
        (["--all-users", "--only", "empty.txt"], ["empty.txt: names no id"]),
        (["--all-users", "--without", "nobody.txt"], ["without: the catalogue has no item 'nobody'"]),
        (["--all-users", "-k", "41"], ["k=41", "from 1 to 40"]),
        (["--all-users", "-k", "0"], ["k=0", "from 1 to 40"]),
        (["--all-users", "--leave-out", "-1"], ["--leave-out -1: must be 0 or more"]),
        (["--history", "a", "--leave-out", "1"], ["--leave-out: is for --all-users and --users"]),
        (["--history", "a", "--unknown-items", "refuse"], ["has item 'a', which the catalogue lacks"]),
        (["--history", "a", "--cold", "refuse"], ["user 1 has no item that the catalogue knows"]),
        (["--history", "a", "--engine", "onnxruntime"], ["has no ONNX graph"]),
        (["--history", "a", "--engine", "abacus"], ["engine=abacus"]),
        (["--history", "a", "--method", "ci"], ["has no method ci; it has"]),
        (["--all-users", "--out", "recs.txt"], ["--out recs.txt: name a file that ends in"]),
        (["--all-users", "--out", "nowhere/recs.csv"], ["there is no folder nowhere"]),
        (["--all-users", "--out", "done.csv"], ["--out done.csv: exists already"]),
        (["--all-users", "--out", "recs.csv", "--shard-size", "0"], ["--shard-size 0: must be 1 or more"]),
        (["--histories", "null.parquet", "--out", "recs.csv"], ["a user is null"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_is_wrong_ends_in_one_line_and_leaves_nothing(
    arguments: list[str], words: list[str], model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_bad_files()
    before = {path.name: path.stat().st_size for path in Path().iterdir()}
    line = refusal(capsys, model, *arguments)
    for word in words:
        assert word in line
    assert {path.name: path.stat().st_size for path in Path().iterdir()} == before


@pytest.mark.parametrize("folder", ["nowhere", "empty"])
def test_a_folder_without_a_recommender_is_one_line(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    for whom in (["--history", "a"], ["--all-users"]):
        assert folder in refusal(capsys, folder, *whom)


def test_ctrl_c_is_one_line_and_resumed(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["recommend", model, "--all-users", "--out", "recs.parquet", "--shard-size", "20"]

    def interrupted(*_: Any) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(stream, "join", interrupted)
        with pytest.raises(SystemExit) as ended:
            main(command)
    assert ended.value.code == 128 + signal.SIGINT
    assert capsys.readouterr().err == "recs.parquet: stopped; the same command resumes with the finished shards\n"
    main(command)
    assert "resumes after 3 of 3 shards" in capsys.readouterr().out
    assert [path.name for path in Path().iterdir()] == ["recs.parquet"]


def test_a_file_of_an_earlier_command_is_not_overwritten_but_one_that_was_stopped_late_is_tidied(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["recommend", model, "--all-users", "--out", "recs.parquet"]
    with monkeypatch.context() as patched:
        patched.setattr(stream, "remove_parts", lambda folder: None)
        main(command)
    assert Path("recs.parquet.parts").is_dir()
    before = Path("recs.parquet").stat().st_mtime_ns
    capsys.readouterr()
    main(command)
    assert capsys.readouterr().out == "recs.parquet: was complete already\n"
    assert Path("recs.parquet").stat().st_mtime_ns == before
    assert [path.name for path in Path().iterdir()] == ["recs.parquet"]
    assert "exists already" in refusal(capsys, *command[1:])


def test_other_ranks_print_nothing_and_write_no_result(
    model: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "tslrec.cli.main", "recommend", model, "--all-users"]
    environment = {**run_environment(tmp_path), "SLURM_PROCID": "1", "SLURM_NTASKS": "2"}
    for extra in ([], ["--out", "recs.parquet", "--shard-size", "50"]):
        run = subprocess.run(
            [*command, *extra], env=environment, capture_output=True, text=True, timeout=HANG_SECONDS, check=False
        )
        assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert not Path("recs.parquet").exists()
    manifests = [json.loads(path.read_text()) for path in Path("recs.parquet.parts").glob("shard-*/manifest.json")]
    assert sorted(manifest["users"] for manifest in manifests) == [10, 50]
    main([*command[3:], "--out", "recs.parquet"])
    assert "resumes after 2 of 2 shards" in capsys.readouterr().out


def test_the_choices_are_those_of_the_recommender(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["recommend", "--help"])
    text = capsys.readouterr().out
    assert f"--unknown-items {{{','.join(UNKNOWN_ITEMS)}}}" in text
    assert f"--cold {{{','.join(COLD)}}}" in text
    assert f"default {stream.SHARD_SIZE}" in text
