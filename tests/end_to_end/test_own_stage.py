"""A stage and a method that no file of `src` names: declared in the registry, they run, are reported and are swept."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.numpy import load_file

from support.in_process import Ended, train_here
from support.inventories import states
from support.runs import SMALL, result_of
from support.runs import train as train_as_program
from tslrec.cli.main import main
from tslrec.pipeline.sweeps.cell import CELL
from tslrec.pipeline.sweeps.record import CellState, Sweep
from tslrec.reports.sweep_view import print_end
from tslrec.stages import registry
from tslrec.stages.declaration import Stage

STAGES = (
    Stage("most_popular", 1, "own_stages.most_popular", reads=("data",), settings=lambda config: {}),
    Stage(
        "popularity",
        2,
        "own_stages.popularity",
        reads=("data",),
        settings=lambda config: {"clusters": config.preferences.num_clusters},
        sections=("preferences",),
        label=lambda config: "counts",
        makes=("knowledge_IH",),
    ),
)
"""What a person adds to `tslrec.stages.registry.STAGES`."""

MODULES = {
    "most_popular": '''
"""Recommends to every user the items with the most training interactions."""

import numpy as np
import torch

from tslrec.evaluation.user_ranks import save_ranks


def run(context):
    data = context.interactions
    counts_I = torch.from_numpy(np.bincount(data.items[data.is_training_N], minlength=data.num_items + 1)).double()
    counts_I[0] = -1
    users, masked, unmasked = data.evaluated_users, [], []
    for user in users:
        *history, target = data.sequence(user).tolist()
        for ranks, candidates_I in ((unmasked, counts_I.clone()), (masked, counts_I.clone())):
            if ranks is masked:
                candidates_I[history] = -1
            ahead, ties = candidates_I > candidates_I[target], candidates_I == candidates_I[target]
            rank = 1 + float(ahead.sum()) + (float(ties.sum()) - 1) / 2
            ranks.append(float("inf") if ranks is masked and target in history else rank)
    metrics = {}
    found = {"masked": torch.tensor(masked), "unmasked": torch.tensor(unmasked)}
    for protocol, ranks_T in found.items():
        for k in (5, 10):
            near_T = ranks_T <= k
            metrics[f"test/{protocol}/HR@{k}"] = float(near_T.double().mean())
            metrics[f"test/{protocol}/NDCG@{k}"] = float((near_T / torch.log2(ranks_T + 1)).double().mean())
    save_ranks({"users": torch.from_numpy(users), **found}, context.folder)
    return {**metrics, "test/users": len(users)}
''',
    "popularity": '''
"""The knowledge of an item: how often it was bought in the training part, as two numbers."""

import numpy as np
import torch

from tslrec.knowledge.single_file import write_knowledge


def run(context):
    data = context.interactions
    counts_I = torch.from_numpy(np.bincount(data.items[data.is_training_N], minlength=data.num_items + 1)).float()
    write_knowledge(context.folder, torch.stack([counts_I, counts_I.add(1).log()], dim=1), data)
    return {"most": int(counts_I.max())}
''',
}

METHODS = {
    "most_popular": """
# @package _global_
method:
  name: most_popular
  title: Most popular
  stages: [most_popular]
""",
    "popular_gate": """
# @package _global_
defaults:
  - override /fusion: gate

method:
  name: popular_gate
  stages: [popularity, fusion]
""",
}

Train = Callable[..., Ended]


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Runs with the two stages in the registry, and the two methods in a folder of configurations of their own."""
    for name, text in MODULES.items():
        write(tmp_path / "code" / "own_stages" / f"{name}.py", text)
    for name, text in METHODS.items():
        write(tmp_path / "own" / "method" / f"{name}.yaml", text)
    # Names in tables are not cut off.
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    monkeypatch.setattr(registry, "STAGES", (*STAGES, *registry.STAGES))

    def run(*overrides: str) -> Ended:
        own = f"hydra.searchpath=[file://{tmp_path / 'own'}]"
        return train_here(*SMALL, "training.max_epochs=1", *overrides, own, folder=tmp_path)

    return run


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.lstrip())


def test_a_stage_that_trains_nothing_runs_and_is_reported(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = train("method=most_popular", "compare=[base]")
    assert ended.code == 0, ended.err
    assert "most_popular · most_popular: computed in" in ended.out
    (base, own) = result_of(tmp_path)["results"]
    assert (base["method"], own["method"]) == ("base", "most_popular")
    assert 0 < own["metrics"]["test/masked/HR@10"] <= 1
    (ranks,) = (tmp_path / "artifacts" / "most_popular").glob("*/ranks.safetensors")
    assert len(load_file(ranks)["users"]) == own["metrics"]["test/users"]

    assert "most_popular · most_popular: reused" in train("method=most_popular", "compare=[base]").out
    main(["report", str(tmp_path / "artifacts"), "--json", str(tmp_path / "report.json")])
    printed = capsys.readouterr().out
    assert f"{own['metrics']['test/masked/HR@10']:.4f}".removeprefix("0") in printed
    rows = json.loads((tmp_path / "report.json").read_text())["rows"]
    assert {row["method"] for row in rows} == {"base", "most_popular"}
    main(["report", str(tmp_path / "artifacts"), "--validation"])
    assert "Most popular" in capsys.readouterr().out


def test_a_stage_gives_knowledge_to_a_fusion_without_any_stage_of_the_paper(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = train("method=popular_gate")
    assert ended.code == 0, ended.err
    (result,) = result_of(tmp_path)["results"]
    assert set(result["stages"]) == {"popularity", "fusion"}
    assert Path(result["stages"]["popularity"]["folder"]).name.startswith("synthetic-counts-")
    assert "test/masked/NDCG@10" in result["metrics"]
    # Seeds share a row; a setting that the stage reads makes a row of its own, though no stage of the paper reads it.
    assert train("method=popular_gate", "seed=1").code == 0
    assert train("method=popular_gate", "preferences.num_clusters=7").code == 0
    main(["report", str(tmp_path / "artifacts"), "--json", str(tmp_path / "report.json")])
    rows = json.loads((tmp_path / "report.json").read_text())["rows"]
    found = {row["differs"]: row["seeds"] for row in rows}
    assert found == {"preferences.num_clusters=4": [0, 1], "preferences.num_clusters=7": [0]}
    assert capsys.readouterr().out.count("popular_gate") == 4
    main(["status", str(tmp_path / "artifacts")])
    assert "popularity" in capsys.readouterr().out
    assert set(states(tmp_path / "artifacts").values()) == {"done"}


def test_a_sweep_records_and_prints_such_runs(
    train: Train, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = [["method=most_popular", "seed=0"], ["method=popular_gate", "seed=0"]]
    sweep = Sweep.of(tmp_path / "artifacts" / "sweeps", Path("train.py"), cells)
    sweep.write()
    for number, words in enumerate(cells):
        monkeypatch.setenv(CELL, str(sweep.record(number)))
        ended = train(*words)
        assert ended.code == 0, ended.err
    assert [cell.state for cell in sweep.status()] == [CellState.DONE, CellState.DONE]
    print_end(sweep)
    printed = capsys.readouterr().out
    assert "Most popular" in printed
    assert "popular_gate" in printed
    assert "All 2 runs are done" in printed


def test_a_method_that_lacks_what_its_own_stage_reads_is_refused(train: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    popularity = next(stage for stage in registry.STAGES if stage.name == "popularity")
    needy = replace(popularity, reads=("data", "most_popular"))
    monkeypatch.setattr(registry, "STAGES", (registry.STAGES[0], needy, *registry.STAGES[2:]))
    assert "'popularity' needs 'most_popular' before it" in train("method=popular_gate").refusal


def test_the_runs_of_a_sweep_find_the_folder_of_configurations_that_it_was_given(tmp_path: Path) -> None:
    own = METHODS["most_popular"].replace("[most_popular]", "[backbone]")
    write(tmp_path / "own" / "method" / "most_popular.yaml", own)
    options = ["--config-dir", "own", "-m", *SMALL, "method=most_popular", "training.max_epochs=1"]
    run = train_as_program(*options, folder=tmp_path)
    assert run.returncode == 0, run.stderr
    assert "All 1 runs are done" in run.stdout
