"""A method that reads titles is refused without them and finds them in an artifact of its own; other keys stay."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from support.grown_market import SETTINGS, write_market
from support.in_process import Ended, forge, train_here
from support.inventories import states
from support.runs import SMALL, result_of
from tslrec.cli.main import main
from tslrec.data.item_titles import FILE
from tslrec.pipeline.identity import TITLES, identity
from tslrec.pipeline.inventory import inventory, left_over
from tslrec.pipeline.unfinished import unfinished_runs
from tslrec.serving.loading import load
from tslrec.serving.run_folder import open_run
from tslrec.stages import registry
from tslrec.stages.declaration import Stage
from tslrec.system.errors import UserError

STAGE = Stage(
    "listing", 1, "own_titles.listing", reads=("data", "titles"), settings=lambda config: {}, continues="carry"
)
"""What a person adds to `tslrec.stages.registry.STAGES`."""

MODULE = '''
"""Writes the titles that it is given; fails where the folder has a file `stop`."""

import json
from pathlib import Path

from tslrec.data.item_titles import read_item_titles
from tslrec.system.errors import UserError


def run(context):
    if Path("stop").exists():
        raise UserError("stop: the stage was told to; remove the file")
    titles = read_item_titles(context.inputs["titles"])
    before = None
    if context.earlier is not None:
        before = read_item_titles(context.earlier.folders["titles"]).texts
    (context.folder / "listing.json").write_text(json.dumps({"texts": titles.texts, "before": before}))
    return {"missing": titles.num_missing}
'''

METHOD = """
# @package _global_
method:
  name: titled
  title: Titled
  stages: [listing, backbone]
"""

Train = Callable[..., Ended]


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Runs with the stage in the registry, and the method in a folder of configurations of its own."""
    (tmp_path / "code" / "own_titles").mkdir(parents=True)
    (tmp_path / "code" / "own_titles" / "listing.py").write_text(MODULE.lstrip())
    (tmp_path / "own" / "method").mkdir(parents=True)
    (tmp_path / "own" / "method" / "titled.yaml").write_text(METHOD.lstrip())
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    monkeypatch.setattr(registry, "STAGES", (STAGE, *registry.STAGES))
    monkeypatch.chdir(tmp_path)

    def run(*overrides: str, settings: tuple[str, ...] = tuple(SMALL)) -> Ended:
        own = f"hydra.searchpath=[file://{tmp_path / 'own'}]"
        return train_here(*settings, "training.max_epochs=1", *overrides, own, folder=tmp_path)

    return run


def write_titles(folder: Path, items: int = 40, name: str = "titles.csv") -> Path:
    """Titles of generated items but for the first two, of which one has an empty title; and of an unknown one."""
    rows = [f'item{item:04d},"Title {item // 2}, new"' for item in range(2, items)]
    path = folder / name
    path.write_text("\n".join(["item_id,title", "item0001, ", *rows, "item0002,Again", "nothing,Unknown"]) + "\n")
    return path


def artifact_of(folder: Path, stage: str) -> Path:
    (found,) = (folder / "artifacts" / stage).glob("*/manifest.json")
    return found.parent


def manifest_of(folder: Path, stage: str) -> dict[str, Any]:
    return json.loads((artifact_of(folder, stage) / "manifest.json").read_text())


def keys(folder: Path) -> dict[str, str]:
    """The keys of all artifacts, by stage; each stage has one."""
    stages = sorted({path.parents[1].name for path in (folder / "artifacts").glob("*/*/manifest.json")})
    return {stage: manifest_of(folder, stage)["key"] for stage in stages}


def test_the_stage_reads_titles_and_the_record_counts_them(
    train: Train, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_titles(tmp_path)
    ended = train("method=titled", "data.titles=titles.csv")
    assert ended.code == 0, ended.err
    line = (
        "Titles: 38 of 40 items have one, titles.csv; 2 without one go by `item RAWID`; 1 ids stand in several rows; "
        "19 titles stand for several items; 1 ids are of no item"
    )
    assert line in ended.out
    counts = {"items": 40, "missing": 2, "repeated_ids": 1, "shared_titles": 19, "unknown_ids": 1}
    manifest = manifest_of(tmp_path, "titles")
    assert manifest["metrics"] == counts
    assert manifest["inputs"] == {"data": manifest_of(tmp_path, "data")["key"]}
    (result,) = result_of(tmp_path)["results"]
    folder = result["titles"].pop("folder")
    assert Path(folder) == artifact_of(tmp_path, "titles")
    assert result["titles"] == {"key": manifest["key"], "sha256": manifest["config"]["sha256"], **counts}
    assert set(result["stages"]) == {"listing", "backbone"}
    assert manifest_of(tmp_path, "listing")["inputs"]["titles"] == manifest["key"]
    assert "titles" not in manifest_of(tmp_path, "backbone")["inputs"]

    raw_ids = pl.read_parquet(artifact_of(tmp_path, "data") / "items.parquet")["raw_id"].to_list()
    texts = json.loads((artifact_of(tmp_path, "listing") / "listing.json").read_text())["texts"]
    found = dict(zip(raw_ids, texts, strict=True))
    assert found[""] == ""
    assert (found["item0000"], found["item0001"], found["item0002"]) == (
        "item item0000",
        "item item0001",
        "Title 1, new",
    )


def test_the_same_bytes_are_read_once_and_others_make_another_result(train: Train, tmp_path: Path) -> None:
    write_titles(tmp_path)
    assert train("method=titled", "data.titles=titles.csv").code == 0
    (before,) = result_of(tmp_path)["results"]
    (tmp_path / "titles.csv").rename(tmp_path / "moved.csv")
    ended = train("method=titled", "data.titles=moved.csv")
    assert "listing: reused" in ended.out
    assert "Titles: 38 of 40 items have one, moved.csv" in ended.out
    (tmp_path / "moved.csv").write_text("item_id,title\nitem0000,Only\n")
    ended = train("method=titled", "data.titles=moved.csv")
    assert "listing: computed" in ended.out
    assert "backbone: reused" in ended.out
    results = [json.loads(path.read_text())["results"][0] for path in tmp_path.glob("artifacts/runs/*/result.json")]
    (after,) = [each for each in results if each["titles"] != before["titles"]]
    assert identity(before)[TITLES] == before["titles"]["sha256"] != identity(after)[TITLES]


@pytest.mark.parametrize("method", ["base", "tslrec"])
def test_titles_change_no_key_of_a_method_that_reads_none(method: str, tmp_path: Path) -> None:
    write_titles(tmp_path)
    without, named, missing = (tmp_path / name for name in ("without", "named", "missing"))
    given = (f"method={method}", *SMALL, "training.max_epochs=1")
    assert train_here(*given, folder=without).code == 0
    assert train_here(*given, f"data.titles={tmp_path / 'titles.csv'}", folder=named).code == 0
    assert train_here(*given, "data.titles=none.csv", folder=missing).code == 0
    assert keys(without) == keys(named) == keys(missing)
    assert "titles" not in keys(named)
    assert "titles" not in result_of(named)["results"][0]


@pytest.mark.parametrize("compared", [False, True])
@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.titles=null", "error: data.titles=null: method=titled reads the items' titles; give data.titles=FILE"),
        ("data.titles=none.csv", "error: none.csv: there is no such file, and method=titled reads the items' titles;"),
        ("data.titles=own", "error: own: is a folder, and method=titled reads the items' titles;"),
    ],
)
def test_without_a_file_it_is_refused_before_the_data_are_read(
    override: str, message: str, compared: bool, train: Train, tmp_path: Path
) -> None:
    path, _ = write_market(tmp_path)
    methods = ["method=base", "compare=[titled]"] if compared else ["method=titled"]
    ended = train(*methods, f"data.path={path}", override, settings=SETTINGS)
    assert ended.refusal.startswith(message)
    assert not list(tmp_path.glob("artifacts/*/*"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("item_id,title\n1,Soap\n", "no row of any of the 40 items of data=synthetic: its first item_id is '1'"),
        ("item_id,name\n1,Soap\n", "titles need item_id and title"),
        ("item_id,title\nitem0000,Soap, liquid\n", "line 2: has 3 fields, but line 1 has 2"),
    ],
)
def test_a_file_that_cannot_be_used_is_refused_before_anything_is_trained(
    content: str, message: str, train: Train, tmp_path: Path
) -> None:
    (tmp_path / "titles.csv").write_text(content)
    assert message in train("method=titled", "compare=[base]", "data.titles=titles.csv").refusal
    assert set(keys(tmp_path)) == {"data"}


def test_status_shows_the_artifact_and_clean_keeps_it_as_long_as_a_run_needs_it(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_titles(tmp_path)
    root = tmp_path / "artifacts"
    (tmp_path / "stop").touch()
    assert "stop: the stage was told to" in train("method=titled", "data.titles=titles.csv").refusal
    (unfinished,) = unfinished_runs(root)
    assert manifest_of(tmp_path, "titles")["key"] in unfinished.keys
    assert "titles" not in {each.stage for each in left_over(root, inventory(root), unfinished_runs(root))}
    (tmp_path / "stop").unlink()
    assert train("method=titled", "data.titles=titles.csv").code == 0
    main(["status", str(root)])
    assert "titles" in capsys.readouterr().out
    assert set(states(root).values()) == {"done"}
    assert left_over(root, inventory(root)) == []

    (tmp_path / "titles.csv").write_text("item_id,title\nitem0000,Only\n")
    assert train("method=titled", "data.titles=titles.csv").code == 0
    (run,) = [path.parent for path in root.glob("runs/*/result.json") if '"missing": 39' in path.read_text()]
    (run / "result.json").unlink()
    assert {each.stage for each in left_over(root, inventory(root))} == {"titles", "listing"}
    main(["clean", str(root), "--yes"])
    assert manifest_of(tmp_path, "titles")["metrics"]["missing"] == 2


def test_a_result_of_another_version_is_stale(train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_titles(tmp_path)
    assert train("method=titled", "data.titles=titles.csv").code == 0
    monkeypatch.setitem(registry.INGESTED, "titles", 99)
    found = {each.stage: each.state.value for each in inventory(tmp_path / "artifacts")}
    assert found["titles"] == "stale"


def test_a_continued_run_reads_its_own_titles_and_finds_the_earlier_ones(train: Train, tmp_path: Path) -> None:
    old, grown = write_market(tmp_path)
    write_titles(tmp_path, 36, "old_titles.csv")
    write_titles(tmp_path, 40, "grown_titles.csv")
    ended = train(
        "method=titled",
        f"data.path={old}",
        "data.titles=old_titles.csv",
        settings=SETTINGS,
    )
    assert ended.code == 0, ended.err
    (run,) = tmp_path.glob("artifacts/runs/*")
    given = ("method=titled", f"data.path={grown}", f"continue_from={run}")
    assert "there is no such file" in train(*given, "data.titles=none.csv", settings=SETTINGS).refusal
    ended = train(*given, "data.titles=grown_titles.csv", settings=SETTINGS)
    assert ended.code == 0, ended.err
    (later,) = set(tmp_path.glob("artifacts/runs/*")) - {run}
    (result,) = json.loads((later / "result.json").read_text())["results"]
    # 40 items of which two have no title, and two cold ones.
    assert (result["titles"]["items"], result["titles"]["missing"]) == (42, 4)
    listing = json.loads((Path(result["stages"]["listing"]["folder"]) / "listing.json").read_text())
    assert (len(listing["texts"]), len(listing["before"])) == (43, 37)
    assert "item cold-1" in listing["texts"]
    finished = open_run(later)
    assert finished.titles_folder == Path(result["titles"]["folder"]).resolve()


def test_serving_shows_the_titles_that_the_method_read(train: Train, tmp_path: Path) -> None:
    write_titles(tmp_path)
    assert train("method=titled", "data.titles=titles.csv").code == 0
    (tmp_path / "titles.csv").unlink()
    (run,) = tmp_path.glob("artifacts/runs/*")
    shown = dict(load(run).catalogue.items.select("raw_id", "title").iter_rows())
    assert shown["item0002"] == "Title 1, new"
    # Without a title it keeps the one of the generated data.
    assert shown["item0000"] == "category 0, no. 0000"
    (tmp_path / "own.csv").write_text("item_id,title\nitem0002,Given\n")
    shown = dict(load(run, titles="own.csv").catalogue.items.select("raw_id", "title").iter_rows())
    assert shown["item0002"] == "Given"
    file = artifact_of(tmp_path, "titles") / FILE
    file.write_bytes(b"none")
    with pytest.raises(UserError, match="titles"):
        load(run)
    forge(file)
    with pytest.raises(UserError, match="delete the folder"):
        load(run)
