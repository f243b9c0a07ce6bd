"""Trainings on soft targets: what a teacher changes in the fusion stage, and that a killed one resumes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from support.killed_training import Kill, KilledError
from support.taught import ITEMS, MODEL, context_of, market, targets_of
from tslrec.settings.choices import MethodConfig
from tslrec.settings.second_stages import SoftTargetsConfig
from tslrec.settings.trainer import TrainerConfig
from tslrec.stages import fusion
from tslrec.stages import soft_targets as stage
from tslrec.stages.fusion_inputs import Sources
from tslrec.stages.restored import restore_fusion
from tslrec.system.errors import UserError
from tslrec.system.safetensors_io import ID_MAP


def written(folder: Path, items_XK: Tensor, shares_XK: Tensor) -> None:
    (folder / "soft_targets").mkdir(parents=True, exist_ok=True)
    arrays = {"items": items_XK.to(torch.int32).contiguous(), "shares": shares_XK.float().contiguous()}
    save_file(arrays, folder / "soft_targets" / stage.FILE, metadata={ID_MAP: market().ids.digest})


def trained(folder: Path, **changes: Any) -> dict[str, Tensor]:
    """The weights of the fusion stage, in float64, where Adam does not turn rounding errors into steps."""
    changes = {"trainer": TrainerConfig("cpu", precision="64-true"), **changes}
    lightning.seed_everything(0, verbose=False)
    fusion.run(context_of(folder, "fusion", **changes))
    return load_file(folder / "fusion" / "weights.safetensors")


NO_TEACHER = MethodConfig("plain", ["fusion"])


@pytest.mark.parametrize("model", ["gru4rec", "caser"])
def test_a_teacher_who_knows_the_target_trains_what_no_teacher_trains(model: str, tmp_path: Path) -> None:
    kinds = {"gru4rec": "gru4rec.GRU4Rec", "caser": "caser.Caser"}
    section = {**MODEL, "_target_": f"tslrec.models.backbones.{kinds[model]}", "name": model}
    targets = torch.tensor([item for _, _, item in targets_of(market())])
    items_XK = torch.stack([targets, targets % ITEMS + 1], dim=1)
    written(tmp_path / "taught", items_XK, torch.tensor([1.0, 0.0]).expand(len(targets), 2))
    taught = trained(tmp_path / "taught", model=section)
    plain = trained(tmp_path / "plain", model=section, method=NO_TEACHER)
    assert taught.keys() == plain.keys()
    for name, value in plain.items():
        torch.testing.assert_close(taught[name], value, rtol=1e-8, atol=1e-10)


def test_a_uniform_teacher_is_label_smoothing(tmp_path: Path) -> None:
    rows = len(targets_of(market()))
    written(tmp_path / "taught", torch.arange(1, ITEMS + 1).expand(rows, ITEMS), torch.full((rows, ITEMS), 1 / ITEMS))
    settings = context_of(tmp_path / "any", "fusion").config.training
    taught = trained(tmp_path / "taught", soft_targets=SoftTargetsConfig(count=ITEMS, weight=0.3))
    smoothed = trained(tmp_path / "smoothed", training=replace(settings, label_smoothing=0.3), method=NO_TEACHER)
    plain = trained(tmp_path / "plain", method=NO_TEACHER)
    for name, value in smoothed.items():
        # 1 / I was rounded to float32.
        torch.testing.assert_close(taught[name], value, rtol=1e-5, atol=1e-7)
    assert any(not torch.allclose(plain[name], value, atol=1e-4) for name, value in smoothed.items())


@pytest.mark.usefixtures("teacher")
def test_the_recommender_needs_no_teacher(tmp_path: Path) -> None:
    stage.run(context_of(tmp_path, "soft_targets"))
    metrics = fusion.run(context := context_of(tmp_path, "fusion"))
    assert 0 < metrics["test/unmasked/HR@10"] <= 1
    restored = restore_fusion(Sources(context.config, market(), {}), tmp_path / "fusion")
    assert restored.output_IE.shape == (ITEMS + 1, 8)


@pytest.mark.usefixtures("teacher")
@pytest.mark.parametrize("model", ["gru4rec.GRU4Rec", "fmlp.FMLPRec"])
def test_a_killed_training_ends_as_if_it_had_not_been(model: str, tmp_path: Path) -> None:
    """Bit for bit, with dropout; killed in an epoch, near its end, and in the next one."""
    section = {**MODEL, "_target_": f"tslrec.models.backbones.{model}"}

    def run(folder: Path, step: int = 10**6) -> dict[str, Any]:
        lightning.seed_everything(0, verbose=False)
        context = context_of(folder, "fusion", model=section)
        make: Callable[..., lightning.Trainer] = context.make_trainer

        def make_trainer(callbacks: Any, **settings: Any) -> lightning.Trainer:
            return make(callbacks=[*callbacks, Kill(step)], **settings)

        return fusion.run(replace(context, make_trainer=make_trainer))

    for folder in (tmp_path / "whole", tmp_path / "killed"):
        stage.run(context_of(folder, "soft_targets"))
    metrics = run(tmp_path / "whole")
    for step in (2, 5, 7):
        with pytest.raises(KilledError):
            run(tmp_path / "killed", step)
    assert run(tmp_path / "killed") == metrics
    files = ("weights.safetensors", "ranks.safetensors", "log/metrics.csv")
    one, other = (
        [hashlib.sha256((tmp_path / name / "fusion" / file).read_bytes()).hexdigest() for file in files]
        for name in ("whole", "killed")
    )
    assert one == other


def test_a_backbone_of_a_persons_own_that_tells_masked_items_is_refused_before_it_trains(tmp_path: Path) -> None:
    rows = len(targets_of(market()))
    written(tmp_path, torch.ones(rows, 1), torch.ones(rows, 1))
    section = {**MODEL, "_target_": "tslrec.models.backbones.bert4rec.BERT4Rec", "name": "mine"}
    with pytest.raises(UserError, match=r"^model=mine: it tells masked items, and a teacher"):
        fusion.run(context_of(tmp_path, "fusion", model=section))
