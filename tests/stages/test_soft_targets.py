"""The stages soft_targets and fusion with a small teacher: what is written, what is trained on it, and what resumes."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from support.interactions import make_interactions
from support.recommenders import random_backbone
from tslrec.config import Config
from tslrec.data.interactions import IdMap, Interactions
from tslrec.knowledge.shard_files import PLAN
from tslrec.pipeline.inventory import progress_note
from tslrec.settings.choices import MethodConfig
from tslrec.settings.data import DataConfig
from tslrec.settings.second_stages import SoftTargetsConfig
from tslrec.settings.trainer import TrainerConfig
from tslrec.settings.training import TrainingConfig
from tslrec.stages import fusion
from tslrec.stages import soft_targets as stage
from tslrec.stages.context import StageContext
from tslrec.stages.fusion_inputs import Sources
from tslrec.stages.key_settings import fusion_settings, recommender_settings, soft_target_settings
from tslrec.stages.method_stages import inputs_of
from tslrec.stages.registry import find_stage
from tslrec.stages.restored import Restored, of_backbone, restore_fusion
from tslrec.system.errors import UserError
from tslrec.system.meter import Meter
from tslrec.system.safetensors_io import ID_MAP
from tslrec.training.checkpoints import Checkpoints
from tslrec.training.trainer import StageTrainers

ITEMS, MAX_LEN = 30, 6
MODEL = {"_target_": "tslrec.models.backbones.gru4rec.GRU4Rec", "name": "gru4rec", "hidden_size": 8}
PLAIN = {"_target_": "tslrec.models.item_embedding.IdEmbedding", "name": "plain"}


def market() -> Interactions:
    """Users with 1 to 14 items; some items occur again."""
    draw = np.random.default_rng(0)
    return make_interactions(
        [draw.integers(1, ITEMS + 1, length).tolist() for length in [5, 14, 1, 3, 2, 9, 12, 4, 7, 11] * 3], ITEMS
    )


def targets_of(interactions: Interactions) -> list[tuple[int, int, int]]:
    """Of each training target the begin of its user's items, its place and the item, written out by hand."""
    found = []
    for user in range(interactions.num_users):
        begin, length = int(interactions.offsets[user]), int(interactions.train_lengths[user])
        found += [(begin, place, int(interactions.items[place])) for place in range(begin + 1, begin + length)]
    return found


@pytest.fixture
def teacher(monkeypatch: pytest.MonkeyPatch) -> Restored:
    """A small backbone in the place of the ensemble."""
    backbone = random_backbone("sasrec", num_items=ITEMS, max_len=MAX_LEN)
    found = of_backbone(backbone, backbone.item_embedding.table().detach().clone())
    monkeypatch.setattr(stage, "restore", lambda name, sources, folder: found)
    return found


def context_of(folder: Path, name: str, *, trainer: TrainerConfig | None = None, **changes: Any) -> StageContext:
    """The context of a stage of the method `distilled`; `changes` are sections of the configuration."""
    config = Config(
        method=MethodConfig("distilled", ["ensemble", "soft_targets", "fusion"]),
        data=DataConfig("market", "market", {}),
        model=MODEL,
        fusion=PLAIN,
        training=TrainingConfig(max_len=MAX_LEN, batch_size=32, learning_rate=1e-2, max_epochs=2, eval_batch_size=8),
        soft_targets=SoftTargetsConfig(count=5),
        trainer=trainer or TrainerConfig("cpu", checkpoint_seconds=0.0),
        preset="tests",
    )
    config, output = replace(config, **changes), folder / name
    if output.exists():
        # As the artifact store does with what a killed process left.
        for path in sorted(output.rglob("*"), reverse=True):
            path.unlink() if path.is_file() else path.rmdir()
    output.mkdir(parents=True, exist_ok=True)
    checkpoints, meter = Checkpoints(folder / f"{name}.checkpoints"), Meter()
    make_trainer = StageTrainers(config.trainer, name, output, checkpoints=checkpoints, meter=meter)
    inputs = {each: folder / each for each in ("ensemble", "soft_targets")}
    return StageContext(config, market(), 0, output, inputs, make_trainer, checkpoints, meter)


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


class KilledError(Exception):
    """Takes the place of SIGKILL."""


class Kill(lightning.Callback):
    """Kills a training at the beginning of a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step >= self.step:
            raise KilledError


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


def test_a_backbone_of_a_persons_own_that_tells_masked_items_is_refused_before_it_trains(tmp_path: Path) -> None:
    rows = len(targets_of(market()))
    written(tmp_path, torch.ones(rows, 1), torch.ones(rows, 1))
    section = {**MODEL, "_target_": "tslrec.models.backbones.bert4rec.BERT4Rec", "name": "mine"}
    with pytest.raises(UserError, match=r"^model=mine: it tells masked items, and a teacher"):
        fusion.run(context_of(tmp_path, "fusion", model=section))


def test_what_determines_each_result(tmp_path: Path) -> None:
    config = context_of(tmp_path, "fusion").config
    weighted = replace(config, soft_targets=SoftTargetsConfig(count=5, weight=0.9))
    longer = replace(config, soft_targets=SoftTargetsConfig(count=7))
    alone = replace(config, method=NO_TEACHER)
    assert soft_target_settings(config) == soft_target_settings(weighted) == {"soft_targets": {"count": 5}}
    assert soft_target_settings(longer) == {"soft_targets": {"count": 7}}
    assert fusion_settings(longer) == fusion_settings(config) == {**fusion_settings(alone), "soft_targets": {}}
    assert fusion_settings(weighted)["soft_targets"] == {"weight": 0.9}
    assert fusion_settings(replace(alone, soft_targets=weighted.soft_targets)) == fusion_settings(alone)
    smoothed = replace(config, training=replace(config.training, label_smoothing=0.1))
    assert recommender_settings(smoothed)["training"]["label_smoothing"] == 0.1
    assert "label_smoothing" not in recommender_settings(config)["training"]
    declared = find_stage("fusion")
    assert declared is not None
    assert inputs_of(config, declared) == ("data", "soft_targets")
    assert inputs_of(alone, declared) == ("data",)
