"""`tslrec VERB`: what it prints and writes, and one line where something is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.checkout import CHECKOUT, PYTHONPATH
from support.waiting import HANG_SECONDS
from tslrec.cli.main import main, verb_names
from tslrec.data.ingest import ingest
from tslrec.settings.data import DataConfig
from tslrec.system.errors import UserError

CSV = "user,item,timestamp\na,x,1\na,y,2\na,y,3\nb,x,5\nb,y,9\nb,z,9\n"
DUPLICATE = "a,y,3\n"


@pytest.fixture
def csv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A small file with times; the working directory and the terminal are the test's own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("TSLREC_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "raw.csv"
    path.write_text(CSV)
    return path


def one_line_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The line with which a command ends that cannot work."""
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert printed.err.startswith("error: ")
    return printed.err


def test_the_audit_prints_each_fact_with_what_it_means(csv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["audit", "data=csv", f"data.path={csv}", "data.title=Mine"])
    printed = capsys.readouterr().out
    lines = [" ".join(line.split()) for line in printed.splitlines()]
    assert "Mine: 2 users, 3 items, 6 interactions, density 100.00%, average length 3.0" in lines
    assert "1 50.00% users can't be hit when history is masked: their test target is in it" in lines
    assert "1 50.00% users' test item is tied with validation: file order decides the split" in lines


def test_the_audit_fits_100_columns_without_wrapping(
    csv: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    csv.write_text(CSV + DUPLICATE)
    printed = []
    for columns in (100, 300):
        monkeypatch.setenv("COLUMNS", str(columns))
        main(["audit", "data=csv", f"data.path={csv}"])
        printed.append([line.rstrip() for line in capsys.readouterr().out.splitlines()])
    assert printed[0] == printed[1]
    assert max(map(len, printed[0])) <= 100


def test_the_json_says_the_same(csv: Path) -> None:
    main(["audit", "--json", "audit.json", "data=csv", f"data.path={csv}", "training.max_len=1"])
    written = json.loads(Path("audit.json").read_text())
    assert (written["data"], written["source"]) == ("csv", str(csv))
    assert written["table1"]["interactions"] == 6
    assert written["evaluation"]["unreachable_test"] == {"count": 1, "of": 2, "share": 0.5}
    assert written["truncation"]["max_len"] == 1
    assert written["truncation"]["long_test_inputs"]["count"] == 2
    assert written["times"]["tied"] == {"count": 2, "of": 6, "share": 2 / 6}
    assert written["duplicates"] == {"count": 0, "of": 6, "share": 0.0}
    assert sorted(path.name for path in csv.parent.iterdir()) == ["audit.json", "raw.csv"]


def test_a_process_of_its_own_gives_the_same_json(csv: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "tslrec.cli.main",
        "audit",
        "data=csv",
        f"data.path={csv}",
        "--json",
        "process.json",
    ]
    environment = {**os.environ, "PYTHONPATH": PYTHONPATH, "OMP_NUM_THREADS": "1"}
    run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=HANG_SECONDS, check=False)
    assert run.returncode == 0, run.stderr
    assert "Evaluation" in run.stdout
    main(["audit", "data=csv", f"data.path={csv}", "--json", "here.json"])
    assert Path("process.json").read_text() == Path("here.json").read_text()


def test_duplicates_that_ingestion_refuses_are_counted(csv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    csv.write_text(CSV + DUPLICATE + DUPLICATE)
    reader = {"_target_": "tslrec.data.formats.tables.read_csv"}
    named = {"user_column": "user", "item_column": "item", "time_column": "timestamp"}
    with pytest.raises(UserError, match="already"):
        ingest(DataConfig(name="own", title="Own", reader={**reader, **named}, path=str(csv)), csv.parent)
    main(["audit", "data=csv", f"data.path={csv}", "--json", "audit.json"])
    assert json.loads(Path("audit.json").read_text())["duplicates"] == {"count": 2, "of": 8, "share": 0.25}
    assert "train.py refuses them" in capsys.readouterr().out


def test_duplicates_are_counted_before_the_filter(csv: Path) -> None:
    csv.write_text(CSV + "c,x,1\nc,x,1\n")
    main(["audit", "data=csv", f"data.path={csv}", "data.min_user_interactions=3", "--json", "audit.json"])
    written = json.loads(Path("audit.json").read_text())
    assert written["table1"]["users"] == 2
    assert written["duplicates"]["count"] == 1


def test_without_timestamps_the_audit_says_so(csv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["audit", "data=csv", f"data.path={csv}", "data.reader.time_column=null", "--json", "audit.json"])
    written = json.loads(Path("audit.json").read_text())
    assert (written["times"], written["duplicates"]) == (None, None)
    assert "No timestamps: file order is time order" in capsys.readouterr().out


def test_the_generated_market_needs_no_file(csv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["audit"])
    assert capsys.readouterr().out.startswith("Synthetic: 800 users, 240 items")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], ["VERB", "tslrec --help"]),
        (["audti"], ["audti", "audit"]),
        (["audit", "--jsn", "x.json"], ["--jsn", "tslrec audit --help"]),
        (["audit", "data=beuty"], ["data=beuty", "did you mean beauty"]),
        (["audit", "data.pth=x"], ["data.pth", "did you mean data.path"]),
        (["audit", "training.max_len=many"], ["training.max_len", "many"]),
        (["audit", "training.max_len=0"], ["training.max_len=0", "from 1 to"]),
        (["audit", "+data.reader.rows=3"], ["data.reader.rows", "num_users"]),
        (["audit", "data=csv"], ["data.path=FILE"]),
        (["audit", "data=csv", "data.path=nowhere.csv"], ["nowhere.csv", "no such file"]),
        (["audit", "--json", "nowhere/audit.json"], ["nowhere", "no folder"]),
        (["audit", "--json", "."], ["is a folder"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_is_wrong_ends_in_one_line(
    csv: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], words: list[str]
) -> None:
    line = one_line_of(capsys, *arguments)
    for word in words:
        assert word in line
    assert [path.name for path in csv.parent.iterdir()] == ["raw.csv"]


def test_a_machine_without_gpus_audits_what_is_trained_on_them(csv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["audit", "experiment=tslrec_fmlp_beauty", "data=csv", f"data.path={csv}"])
    assert "2 users" in capsys.readouterr().out


def test_every_module_of_the_package_is_a_verb_but_the_programs() -> None:
    modules = {path.stem for path in (CHECKOUT / "src/tslrec/cli").glob("*.py")}
    assert set(verb_names()) == modules - {"__init__", "__main__", "main", "train"}
    assert {"audit", "paper", "plan", "report"} <= set(verb_names())


def installed_without_checkout(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if only the package were installed: its code is not in a checkout."""
    monkeypatch.setattr("tslrec.pipeline.choices.__file__", str(folder / "site-packages" / "tslrec" / "choices.py"))


def test_the_configurations_are_found_in_the_working_directory(
    csv: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed_without_checkout(csv.parent, monkeypatch)
    monkeypatch.chdir(CHECKOUT)
    main(["audit", "data=csv", f"data.path={csv}"])
    assert "2 users" in capsys.readouterr().out


def test_configurations_that_cannot_be_found_end_in_one_line(
    csv: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    installed_without_checkout(csv.parent / "lib", monkeypatch)
    line = one_line_of(capsys, "audit")
    assert "train.yaml" in line
    assert "pip install --editable" in line
