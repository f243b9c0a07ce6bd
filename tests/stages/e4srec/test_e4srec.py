"""E4SRec: which examples it sees, that its fast way is its naive way, and that it learns and goes on."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from support.interactions import make_interactions
from tslrec.config import Config
from tslrec.data.evaluated_users import sample_users
from tslrec.data.interactions import Interactions
from tslrec.evaluation.chosen_metrics import RankingMetrics
from tslrec.evaluation.user_ranks import UserRanks
from tslrec.llm.packing import Packer
from tslrec.llm.weights_source import resolve
from tslrec.settings.choices import MethodConfig
from tslrec.settings.data import DataConfig
from tslrec.settings.language_models import LLMConfig, LoraConfig
from tslrec.settings.rivals import E4SRecConfig
from tslrec.settings.trainer import TrainerConfig
from tslrec.settings.training import TrainingConfig
from tslrec.stages.context import StageContext
from tslrec.stages.e4srec import stage as e4srec
from tslrec.stages.e4srec.data import InstanceDataModule
from tslrec.stages.e4srec.model import NextItemLLM, new_e4srec
from tslrec.stages.e4srec.module import E4SRecModule
from tslrec.system.meter import Meter
from tslrec.training.checkpoints import Checkpoints
from tslrec.training.losses import softmax_loss
from tslrec.training.trainer import StageTrainers

NUM_ITEMS, SIZE, MAX_LEN = 12, 6, 5
ITS_LORA = LoraConfig(4, 8, 0.1, ["gate_proj", "up_proj", "down_proj"])


def cycles(num_users: int) -> Interactions:
    """Every user walks around all items, so that the last item tells the next one."""
    return make_interactions(
        [[1 + (start + i) % NUM_ITEMS for i in range(4 + start % 5)] for start in range(num_users)], NUM_ITEMS
    )


def data_module(interactions: Interactions, **changes: Any) -> InstanceDataModule:
    numbers = {"max_len": MAX_LEN, "batch_size": 8, "eval_batch_size": 4, "seed": 0, **changes}
    return InstanceDataModule(interactions, Packer(num_response=2), **numbers)


def make_model(*, shared_prefix: bool) -> NextItemLLM:
    llm = LLMConfig(name="tiny", random={}, shared_prefix=shared_prefix)
    torch.manual_seed(0)
    table_ID = torch.randn(NUM_ITEMS + 1, SIZE)
    return new_e4srec(llm, LoraConfig(2, 4, 0.0, ["up_proj", "down_proj"]), resolve(llm, Path("unused")), table_ID)


def test_each_recent_position_is_a_target_also_the_first_with_an_empty_history() -> None:
    interactions = make_interactions([[1, 2, 3, 4, 5], [6, 7], list(range(1, 12))])
    data = data_module(interactions)
    begins, targets = data.begins_N, data.targets_N
    shown = [
        (interactions.items[begin:target].tolist(), int(interactions.items[target]))
        for begin, target in zip(begins, targets, strict=True)
    ]
    assert shown[:3] == [([], 1), ([1], 2), ([1, 2], 3)]
    assert shown[3:5] == [([], 6), ([6], 7)]
    # Of nine items the last five are positions, and none sees what was cut off.
    assert shown[5:] == [([], 5), ([5], 6), ([5, 6], 7), ([5, 6, 7], 8), ([5, 6, 7, 8], 9)]


def test_an_epoch_shows_each_instance_once() -> None:
    interactions = cycles(17)
    data = data_module(interactions)
    batches = list(data.train_dataloader())
    assert len(batches) == len(data.batches)
    targets = torch.cat([batch.targets_B for batch in batches])
    assert sorted(targets.tolist()) == sorted(interactions.items[data.targets_N].tolist())


def test_a_share_of_the_instances_is_drawn_once() -> None:
    interactions = cycles(17)

    def shown(share: float, seed: int = 0) -> list[tuple[int, int]]:
        data = InstanceDataModule(
            interactions,
            Packer(num_response=2),
            max_len=MAX_LEN,
            batch_size=8,
            eval_batch_size=4,
            seed=seed,
            share=share,
        )
        assert len(data.batches) == -(-len(data.targets_N) // 8)
        return list(zip(data.begins_N.tolist(), data.targets_N.tolist(), strict=True))

    everything, half = shown(1.0), shown(0.5)
    assert len(half) == round(len(everything) / 2)
    assert set(half) < set(everything)
    assert half == shown(0.5) != shown(0.5, seed=1)
    assert len(shown(1e-9)) == 1


def test_users_are_evaluated_on_what_the_recommenders_are() -> None:
    interactions = make_interactions([[1, 2, 3, 4, 5], [6, 7], [8, 9, 10, 8]])
    (batch,) = data_module(interactions).test_dataloader()
    assert batch.targets_B.tolist() == [8, 5]
    assert batch.seen_items_S.tolist() == [8, 9, 10, 1, 2, 3, 4]
    (validation,) = data_module(interactions).val_dataloader()
    assert validation.targets_B.tolist() == [10, 4]


def test_the_users_that_are_drawn_are_those_of_every_recommender() -> None:
    interactions = cycles(17)
    data = data_module(interactions, validation_users=5, test_users=9)
    for batches, count in ((data.val_dataloader(), 5), (data.test_dataloader(), 9)):
        users = torch.cat([batch.users_B for batch in batches])
        assert sorted(users.tolist()) == sample_users(interactions, count).tolist()
    assert (len(data.validated), len(data.tested)) == (5, 9)
    everyone = data_module(interactions)
    assert everyone.validated.tolist() == everyone.tested.tolist() == interactions.evaluated_users.tolist()


def test_a_process_that_no_user_is_left_for_runs_one_that_does_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    # Under ZeRO-3 the processes gather the weights together, so none may leave out a pass.
    interactions = make_interactions([[1, 2, 3, 4]] * 5)
    counted = []
    for rank in range(2):
        monkeypatch.setattr("tslrec.data.evaluated_users.rank_and_world_size", lambda rank=rank: (rank, 2))
        batches = InstanceDataModule(
            interactions, Packer(num_response=2), max_len=MAX_LEN, batch_size=8, eval_batch_size=1, seed=0
        ).test_dataloader()
        counted.append([batch.counted for batch in batches])
        assert all(len(batch.targets_B) == 1 for batch in batches)
    assert counted == [[True, True, True], [True, True, False]]
    module = E4SRecModule(
        lambda: make_model(shared_prefix=True), num_steps=1, learning_rate=0.1, weight_decay=0.0, warmup_steps=1
    )
    module.model = module.make_model()
    (last,) = list(batches)[2:]
    metrics, kept = RankingMetrics(), UserRanks()
    with torch.no_grad():
        module.rank(last, metrics, kept)
        assert not kept.parts
        module.rank(last._replace(counted=True), metrics, kept)
    assert len(kept.parts) == 1


def test_the_shared_prefix_gives_the_gradients_of_whole_sequences() -> None:
    histories = [np.array(items, dtype=np.int64) for items in ([], [3], [1, 2, 3, 4], [5, 1])]
    targets = torch.tensor([1, 4, 5, 2])
    found = []
    for shared in (True, False):
        model = make_model(shared_prefix=shared)
        softmax_loss(model(model.packer(histories)), model.item_head.weight, targets).backward()
        found.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[1].items():
        difference = float((found[0][name] - gradient).norm())
        assert difference <= 1e-4 * float(gradient.norm()) + 1e-7, name


def run_stage(
    folder: Path,
    name: str,
    *callbacks: lightning.Callback,
    max_epochs: int,
    lora: LoraConfig = ITS_LORA,
    **training: Any,
) -> dict[str, Any]:
    lightning.seed_everything(3, verbose=False)
    inputs = folder / "backbone"
    inputs.mkdir(exist_ok=True)
    table_ID = np.random.default_rng(0).normal(size=(NUM_ITEMS + 1, SIZE)).astype(np.float32)
    save_file({"item_embeddings": table_ID}, inputs / "item_embeddings.safetensors")
    output = folder / name
    if output.exists():
        shutil.rmtree(output)
    output.mkdir()
    config = Config(
        method=MethodConfig("e4srec", ["backbone", "e4srec"]),
        data=DataConfig("market"),
        model={"name": "sasrec"},
        fusion={},
        llm=LLMConfig(name="tiny", random={}),
        e4srec=E4SRecConfig(learning_rate=5e-3, max_epochs=max_epochs, warmup_steps=4, lora=lora, eval_batch_size=7),
        training=TrainingConfig(max_len=MAX_LEN, **training),
        trainer=TrainerConfig("cpu", checkpoint_seconds=0),
        preset="tests",
        cache=str(folder),
    )
    checkpoints = Checkpoints(folder / f"{name}.checkpoints")
    meter = Meter()
    trainers = StageTrainers(config.trainer, "e4srec", output, checkpoints=checkpoints, meter=meter)

    def make_trainer(**settings: Any) -> lightning.Trainer:
        return trainers(**{**settings, "callbacks": [*settings["callbacks"], *callbacks]})

    return e4srec.run(
        StageContext(config, cycles(40), 3, output, {"backbone": inputs}, make_trainer, checkpoints, meter)
    )


@pytest.mark.slow
def test_it_learns_what_the_last_item_tells(tmp_path: Path) -> None:
    # Where the attention, too, is adapted: a random model's looks everywhere alike.
    attention = ["q_proj", "k_proj", "v_proj", "o_proj"]
    lora = LoraConfig(8, 16, 0.0, [*attention, *ITS_LORA.targets])
    metrics = run_stage(tmp_path, "learns", max_epochs=25, lora=lora)
    assert metrics["test/unmasked/HR@5"] > 0.9
    assert metrics["validation/unmasked/HR@5"] > 0.9
    written = {"adapter", "heads.safetensors", "ranks.safetensors", "log"}
    assert {path.name for path in (tmp_path / "learns").iterdir()} == written
    ranks = load_file(tmp_path / "learns" / "ranks.safetensors")
    assert ranks["users"].tolist() == list(range(40))
    assert (ranks["unmasked"] <= 5).mean() == pytest.approx(metrics["test/unmasked/HR@5"])
    heads = load_file(tmp_path / "learns" / "heads.safetensors")
    assert heads["item_head.weight"].shape == (NUM_ITEMS + 1, 32)
    assert not heads["item_head.weight"][0].any()


def test_it_tells_how_many_users_were_evaluated(tmp_path: Path) -> None:
    metrics = run_stage(tmp_path, "drawn", max_epochs=1, validation_users=6, test_users=11)
    assert (metrics["validation/users"], metrics["test/users"]) == (6, 11)
    ranks = load_file(tmp_path / "drawn" / "ranks.safetensors")
    assert ranks["users"].tolist() == sample_users(cycles(40), 11).tolist()


def test_a_killed_training_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    class KilledError(Exception):
        pass

    class Kill(lightning.Callback):
        def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
            if trainer.global_step == 17:
                raise KilledError

    whole = run_stage(tmp_path, "whole", max_epochs=3)
    with pytest.raises(KilledError):
        run_stage(tmp_path, "killed", Kill(), max_epochs=3)
    assert run_stage(tmp_path, "killed", max_epochs=3) == whole
    for name in ("adapter/adapter_model.safetensors", "heads.safetensors"):
        one, other = load_file(tmp_path / "whole" / name), load_file(tmp_path / "killed" / name)
        assert all(np.array_equal(one[key], other[key]) for key in one)
