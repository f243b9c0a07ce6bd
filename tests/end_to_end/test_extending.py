"""One file in Python and one in YAML add a part, outside of the checkout too: no file of `src` is edited."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from support.in_process import train_here
from support.runs import SMALL, result_of
from tslrec.cli.main import main
from tslrec.evaluation.metrics import METRICS_BY_NAME

MODULES = {
    "backbone": '''
"""The user vector is a linear map of the last item's vector."""

from torch import Tensor, nn

from tslrec.models.backbones.base import Backbone, last_position
from tslrec.models.item_embedding import ItemEmbedding


class LastItem(Backbone):
    def __init__(self, item_embedding: ItemEmbedding, num_users: int, max_len: int, *, bias: bool = True) -> None:
        super().__init__(item_embedding, max_len)
        self.map = nn.Linear(self.hidden_size, self.hidden_size, bias=bias)

    def forward(self, items_BL, lengths_B, users_B, table_ID=None) -> Tensor:
        return self.map(last_position(self.embed(items_BL, table_ID), lengths_B))
''',
    "fusion": '''
"""An item's vector is the mean of its own and its category's."""

from torch import Tensor

from tslrec.models.fusions.category import CategoryFusion


class Halved(CategoryFusion):
    def table(self) -> Tensor:
        return super().table() / 2

    def rows(self, items_R: Tensor) -> Tensor:
        return super().rows(items_R) / 2
''',
    "metric": '''
"""The share of users whose target is the first."""

import torch
from torch import Tensor

from tslrec.evaluation.metrics import RankMetric


class First(RankMetric):
    name = "First"

    def gain(self, ranks_B: Tensor) -> Tensor:
        return (ranks_B < 2).double()
''',
    "tracker": '''
"""Appends what it is told to a text file."""

from tslrec.pipeline.trackers.base import Tracker


class TextTracker(Tracker):
    def __init__(self, config, identity, folder, *, file: str = "told.txt") -> None:
        self.name = identity.name
        self.path = folder / file

    def log_artifact(self, stage, artifact) -> None:
        with self.path.open("a") as file:
            print(self.name, stage, artifact.key, file=file)

    def log_result(self, metrics) -> None:
        with self.path.open("a") as file:
            print(self.name, "NDCG@10", metrics["test/masked/NDCG@10"], file=file)
''',
    "reader": '''
"""Lines of `user>item`."""

from pathlib import Path

import polars as pl

from tslrec.data.formats.base import RawInteractions, read_lines


def read(path: Path, mark: str = ">") -> RawInteractions:
    fields = pl.col("text").str.splitn(mark, 2).struct.rename_fields(["user", "item"])
    return RawInteractions(read_lines(path).select(fields.alias("fields"), "line").unnest("fields"))
''',
}

CHOICES = {
    "model/last_item": "name: last_item\nhidden_size: 64\n_target_: own_parts.backbone.LastItem\nbias: true\n",
    "fusion/halved": "name: halved\n_target_: own_parts.fusion.Halved\n",
    "logger/text": "name: text\n_target_: own_parts.tracker.TextTracker\nfile: told.txt\n",
    "data/arrows": "name: arrows\ntitle: Arrows\nreader:\n  name: arrows\n  _target_: own_parts.reader.read\n"
    "path: ???\n",
    "method/halved_ci": "# @package _global_\ndefaults:\n  - override /fusion: halved\n\nmethod:\n  name: halved_ci\n"
    "  title: Halved CI\n  stages: [backbone, preferences, fusion]\n",
}


def test_parts_of_every_kind_are_added_without_an_edit_in_src(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for folder, texts, suffix in (("code/own_parts", MODULES, ".py"), ("own", CHOICES, ".yaml")):
        for name, text in texts.items():
            path = tmp_path / folder / f"{name}{suffix}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text.lstrip())
    lines = [f"u{user}>i{(user * step + step) % 30}" for user in range(40) for step in range(1, 9)]
    (tmp_path / "log.txt").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(tmp_path / "code"))
    monkeypatch.setenv("COLUMNS", "200")
    # In a checkout the class stands in evaluation/metrics.py.
    __import__("own_parts.metric")
    try:
        ended = train_here(
            *(setting for setting in SMALL if not setting.startswith("data.")),
            *("method=halved_ci", "model=last_item", "data=arrows", f"data.path={tmp_path / 'log.txt'}"),
            *("logger=text", "metrics=[NDCG@10,First@10]", "training.max_epochs=1"),
            f"hydra.searchpath=[file://{tmp_path / 'own'}]",
            folder=tmp_path,
        )
    finally:
        del METRICS_BY_NAME["First"]
    assert ended.code == 0, ended.err
    assert "Arrows: 40 users" in ended.out
    assert "Halved CI" in ended.out
    assert "First@10" in ended.out
    (result,) = result_of(tmp_path)["results"]
    assert set(result["stages"]) == {"backbone", "preferences", "fusion"}
    assert 0 <= result["metrics"]["test/masked/First@10"] <= 1
    told = [line.split() for line in (tmp_path / "artifacts" / "told.txt").read_text().splitlines()]
    assert [line[1] for line in told] == ["backbone", "preferences", "fusion", "NDCG@10"]
    assert told[2][2] == result["stages"]["fusion"]["key"]

    main(["report", str(tmp_path / "artifacts"), "--json", str(tmp_path / "report.json")])
    assert "Halved CI" in capsys.readouterr().out
    assert [row["method"] for row in json.loads((tmp_path / "report.json").read_text())["rows"]] == ["halved_ci"]
