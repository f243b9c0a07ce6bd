"""`metrics: [...]`: what it refuses, which results it makes other ones, and what the tables then show."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from support.in_process import train_here
from support.runs import SMALL
from tslrec.config import Config
from tslrec.pipeline.check import check_metrics
from tslrec.pipeline.recorded_results import read_results
from tslrec.reports.paper.collect import with_paper_metrics
from tslrec.reports.summary import summarise
from tslrec.reports.summary_view import print_summary
from tslrec.settings.choices import MethodConfig
from tslrec.settings.trainer import TrainerConfig
from tslrec.stages.key_settings import metric_settings
from tslrec.system.consoles import plain_console
from tslrec.system.errors import UserError


def configured(*metrics: str) -> Config:
    config = Config(method=MethodConfig("base", ["backbone"]), trainer=TrainerConfig("cpu"))
    if metrics:
        config.metrics = list(metrics)
    return config


def test_the_default_list_in_any_order_leaves_keys_as_they_are() -> None:
    assert metric_settings(configured()) == {}
    assert metric_settings(configured("NDCG@10", "NDCG@5", "HR@10", "HR@5")) == {}


def test_other_metrics_are_other_results_whatever_their_order() -> None:
    assert metric_settings(configured("MRR@10", "HR@10")) == {"metrics": ["HR@10", "MRR@10"]}
    assert metric_settings(configured("HR@10", "MRR@10", "HR@10")) == {"metrics": ["HR@10", "MRR@10"]}


@pytest.mark.parametrize(
    ("metrics", "message"),
    [([], "name at least one"), (["HR@10", "AUC"], "no metric 'AUC'; there are HR@k"), (["MRR"], "like MRR@10")],
)
def test_a_list_that_cannot_be_computed_is_refused(metrics: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_metrics(metrics)


def test_the_default_is_checked_without_torch() -> None:
    code = "import sys; from tslrec.pipeline.check import check_metrics; "
    code += "from tslrec.settings.metrics import DEFAULT_METRICS; check_metrics(DEFAULT_METRICS); "
    code += "sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_run_computes_and_shows_the_configured_metrics_alone(tmp_path: Path) -> None:
    chosen = ["HR@10", "MRR@10", "Coverage@10", "Popularity@5", "Gini@10"]
    ended = train_here("method=base", *SMALL, f"metrics=[{','.join(chosen)}]", folder=tmp_path)
    assert ended.code == 0, ended.err
    assert all(name in ended.out for name in chosen)
    assert "NDCG@5" not in ended.out
    (path,) = (tmp_path / "artifacts" / "runs").glob("*/result.json")
    metrics = json.loads(path.read_text())["results"][0]["metrics"]
    of_test = {name for name in metrics if name.startswith("test/") and "@" in name}
    assert of_test == {f"test/{protocol}/{name}" for protocol in ("masked", "unmasked") for name in chosen}
    assert {name.split("/")[-1] for name in metrics if name.startswith("validation/") and "@" in name} == {
        "HR@10",
        "MRR@10",
        "NDCG@10",
    }
    assert 0 < metrics["test/masked/Coverage@10"] <= 1
    assert 0 <= metrics["test/masked/Gini@10"] < 1
    console = plain_console(width=120, record=True)
    print_summary(summarise(read_results(tmp_path / "artifacts")), console)
    shown = console.export_text()
    assert "–: a run of this row did not compute the metric" in shown
    assert f"{metrics['test/masked/HR@10']:.4f}".removeprefix("0") in shown


def test_a_cell_has_the_papers_metrics_whatever_the_run_computed() -> None:
    ranks = {"users": np.arange(4), "masked": np.array([1, 2, 7, np.inf]), "unmasked": np.array([1, 3, 11, 6])}
    found = with_paper_metrics({"test/masked/HR@5": 0.5, "test/masked/MRR@5": 0.375}, ranks)
    assert list(found)[:2] == ["test/masked/HR@5", "test/masked/MRR@5"]
    assert found["test/masked/HR@10"] == 0.75
    assert found["test/unmasked/NDCG@5"] == pytest.approx((1 + 1 / 2) / 4)
    assert len(found) == 9
