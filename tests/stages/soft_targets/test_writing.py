"""The stage soft_targets: what it writes, what resumes, and what determines its result."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from support.taught import ITEMS, MAX_LEN, context_of, market, targets_of
from tslrec.data.interactions import IdMap, Interactions
from tslrec.knowledge.shard_files import PLAN
from tslrec.pipeline.inventory import progress_note
from tslrec.settings.choices import MethodConfig
from tslrec.settings.second_stages import SoftTargetsConfig
from tslrec.stages import soft_targets as stage
from tslrec.stages.fusion_inputs import Sources
from tslrec.stages.key_settings import fusion_settings, recommender_settings, soft_target_settings
from tslrec.stages.restored import Restored
from tslrec.system.errors import UserError


@pytest.mark.parametrize(("count", "temperature"), [(5, 1.0), (5, 0.5), (1, 1.0), (ITEMS, 2.0)])
def test_each_target_has_the_teachers_best_items_and_their_shares(
    count: int, temperature: float, teacher: Restored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "SHARD", 40)
    monkeypatch.setattr(stage, "MOST_ROWS", 7)
    settings = SoftTargetsConfig(count=count, temperature=temperature)
    metrics = stage.run(context_of(tmp_path, "soft_targets", soft_targets=settings))
    found, interactions = load_file(tmp_path / "soft_targets" / stage.FILE), market()
    targets = targets_of(interactions)
    assert found["items"].dtype == torch.int32
    assert found["items"].shape == found["shares"].shape == (len(targets), count)
    first, listed, share, entropy = 0, 0, 0.0, 0.0
    for row, (begin, place, item) in enumerate(targets):
        items_1L = torch.from_numpy(interactions.items[max(begin, place - MAX_LEN) : place].astype(np.int64))[None]
        with torch.inference_mode():
            scores_I = (teacher.encode(items_1L, torch.tensor([items_1L.shape[1]])) @ teacher.output_IE[1:].T)[0]
        best = scores_I.sort(descending=True, stable=True)
        assert found["items"][row].tolist() == (best.indices[:count] + 1).tolist()
        shares_K = (best.values[:count] / temperature).softmax(dim=0)
        torch.testing.assert_close(found["shares"][row], shares_K, rtol=1e-4, atol=1e-6)
        places = (found["items"][row] == item).nonzero().flatten().tolist()
        first, listed = first + (places == [0]), listed + len(places)
        share += float(shares_K[places].sum())
        entropy += float(-(shares_K * shares_K.log()).sum())
    wanted = {"target_first": first, "target_listed": listed, "target_share": share, "entropy": entropy}
    assert metrics.pop("positions") == len(targets)
    assert metrics.pop("temperature") == temperature
    assert metrics == pytest.approx({name: value / len(targets) for name, value in wanted.items()}, rel=1e-4)
    assert metrics["target_listed"] == 1.0 or count < ITEMS


def test_scores_that_are_not_finite_are_refused(teacher: Restored, tmp_path: Path) -> None:
    teacher.output_IE[3, 0] = torch.nan
    with pytest.raises(UserError, match=r"^soft_targets: the teacher gave scores that are not finite; look at the ens"):
        stage.run(context_of(tmp_path, "soft_targets"))


@pytest.mark.usefixtures("teacher")
def test_a_stopped_run_computes_only_the_shards_that_are_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "SHARD", 25)
    stage.run(context_of(tmp_path / "whole", "soft_targets"))
    taught, calls = stage.taught, []

    def stopped(*arguments: Any) -> tuple[Tensor, Tensor]:
        calls.append(arguments[3].start)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return taught(*arguments)

    monkeypatch.setattr(stage, "taught", stopped)
    context = context_of(tmp_path, "soft_targets")
    with pytest.raises(KeyboardInterrupt):
        stage.run(context)
    spans = range(0, len(targets_of(market())), 25)
    assert progress_note(context.checkpoints.folder) == f"2 of {len(spans)} shards"
    stage.run(context_of(tmp_path, "soft_targets"))
    assert calls == [0, 25, 50, *spans[2:]]
    one, other = (path / "soft_targets" / stage.FILE for path in (tmp_path / "whole", tmp_path))
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.usefixtures("teacher")
def test_a_plan_that_cannot_be_read_is_refused_in_one_line(tmp_path: Path) -> None:
    context = context_of(tmp_path, "soft_targets")
    context.checkpoints.folder.mkdir(parents=True, exist_ok=True)
    (context.checkpoints.folder / PLAN).write_text('{"num_rows": 3}', encoding="utf-8")
    with pytest.raises(UserError, match=r"plan\.json: not a readable plan \('temperature'\); delete .+ to compute all"):
        stage.run(context)


@pytest.mark.usefixtures("teacher")
def test_soft_targets_of_other_data_are_refused(tmp_path: Path) -> None:
    context = context_of(tmp_path, "soft_targets")
    stage.run(context)
    sources, data = Sources(context.config, context.interactions, context.inputs), context.interactions
    stage.read_soft_targets(sources)
    fewer = np.array([*data.offsets[:-1], data.num_interactions - 1])
    shorter = Interactions(data.name, data.items[:-1].copy(), fewer, data.ids)
    with pytest.raises(UserError, match=r"soft_targets\.safetensors: not the \d+ training targets of the data; delete"):
        stage.read_soft_targets(replace(sources, interactions=shorter))
    renamed = replace(data, ids=IdMap(data.ids.users, ("", *(f"j{item}" for item in range(ITEMS)))))
    with pytest.raises(UserError, match=r"soft_targets\.safetensors: its rows are other items than those of written"):
        stage.read_soft_targets(replace(sources, interactions=renamed))


def test_what_determines_each_result(tmp_path: Path) -> None:
    config = context_of(tmp_path, "fusion").config
    weighted = replace(config, soft_targets=SoftTargetsConfig(count=5, weight=0.9))
    longer = replace(config, soft_targets=SoftTargetsConfig(count=7))
    alone = replace(config, method=MethodConfig("plain", ["fusion"]))
    assert soft_target_settings(config) == soft_target_settings(weighted) == {"soft_targets": {"count": 5}}
    assert soft_target_settings(longer) == {"soft_targets": {"count": 7}}
    assert fusion_settings(longer) == fusion_settings(config) == {**fusion_settings(alone), "soft_targets": {}}
    assert fusion_settings(weighted)["soft_targets"] == {"weight": 0.9}
    assert fusion_settings(replace(alone, soft_targets=weighted.soft_targets)) == fusion_settings(alone)
    smoothed = replace(config, training=replace(config.training, label_smoothing=0.1))
    assert recommender_settings(smoothed)["training"]["label_smoothing"] == 0.1
