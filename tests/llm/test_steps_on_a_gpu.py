"""A step of the language model gives a GPU its work without waiting for it: counted on a CPU."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch

from support.sft_market import NUM_CLUSTERS, market
from support.synchronisations import as_on_a_gpu, reading_counted
from support.tiny_model import NUM_ITEMS, make_model
from tslrec.llm import finetuning
from tslrec.llm.tiny import byte_tokenizer
from tslrec.llm.title_tokens import encode_titles
from tslrec.llm.weights_source import resolve
from tslrec.settings.language_models import LLMConfig, LoraConfig
from tslrec.settings.rivals import LlamaRecConfig
from tslrec.settings.trainer import TrainerConfig
from tslrec.stages.e4srec.data import InstanceDataModule
from tslrec.stages.e4srec.model import new_e4srec
from tslrec.stages.e4srec.module import E4SRecModule
from tslrec.stages.llamarec.data import RankerDataModule
from tslrec.stages.llamarec.model import new_ranker, ranker_packer
from tslrec.stages.llamarec.module import RankerModule
from tslrec.stages.llamarec.prompt import pieces_for
from tslrec.stages.sft.data import PreferenceDataModule
from tslrec.stages.sft.module import PreferenceSFTModule
from tslrec.system.meter import Meter
from tslrec.training import trainer as trainer_module
from tslrec.training.checkpoints import Checkpoints
from tslrec.training.trainer import StageTrainers

__all__ = ["as_on_a_gpu"]

Training = tuple[lightning.LightningModule, lightning.LightningDataModule]


class Window(lightning.Callback):
    """Counts what waits between the beginning of one step and the end of another, in the middle of an epoch.

    Attributes:
        found: how often, by operation.
        launches: operations of these steps.
    """

    FIRST, LAST = 2, 6

    def __init__(self, patched: pytest.MonkeyPatch) -> None:
        self.counting = reading_counted(patched)
        self.found: dict[str, int] = {}
        self.launches = 0

    def on_train_batch_start(self, trainer: lightning.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == self.FIRST:
            self.record = self.counting.__enter__()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if batch_idx == self.LAST:
            self.counting.__exit__(None, None, None)
            self.found, self.launches = dict(self.record.found), self.record.launches


def sft() -> Training:
    interactions = market()
    targets_UK = np.random.default_rng(0).dirichlet(np.ones(NUM_CLUSTERS), interactions.num_users).astype(np.float32)
    model = make_model(dtype="bfloat16")
    data = PreferenceDataModule(interactions, targets_UK, model.packer, max_len=50, batch_size=8, seed=0)
    module = PreferenceSFTModule(
        lambda: model,
        torch.from_numpy(targets_UK.mean(axis=0)),
        data.sample(16),
        num_steps=len(data.batches),
        learning_rate=1e-3,
    )
    return module, data


def e4srec() -> Training:
    llm = LLMConfig(name="tiny", random={}, dtype="bfloat16")
    lora = LoraConfig(4, 4, 0.05, ["gate_proj", "up_proj", "down_proj"])
    model = new_e4srec(llm, lora, resolve(llm, Path("unused")), torch.randn(NUM_ITEMS + 1, 6))
    data = InstanceDataModule(market(), model.packer, max_len=50, batch_size=16, eval_batch_size=16, seed=0)
    module = E4SRecModule(
        lambda: model, num_steps=len(data.batches), learning_rate=1e-3, weight_decay=0.0, warmup_steps=2
    )
    # The softmax over all items has another way on a GPU, with tests of its own.
    module.loss = lambda user_BH, targets_B: torch.nn.functional.cross_entropy(  # type: ignore[method-assign]
        user_BH @ model.item_table().T, targets_B, reduction="sum"
    )
    return module, data


def llamarec() -> Training:
    llm = LLMConfig(name="tiny", random={}, dtype="bfloat16")
    numbers = LlamaRecConfig(candidates=5, history=3, max_tokens=400, warmup_steps=2)
    interactions, tokenizer = market(), byte_tokenizer()
    pieces = pieces_for(tokenizer, numbers)
    titles = ["", *(f"item {raw_id}" for raw_id in interactions.ids.items[1:])]
    items = encode_titles(tokenizer, titles, numbers.title_tokens)
    data = RankerDataModule(
        interactions,
        pieces,
        items,
        ranker_packer(pieces, shared_prefix=True),
        numbers=numbers,
        retrieved={},
        seed=0,
    )
    module = RankerModule(
        lambda: new_ranker(llm, numbers.lora, resolve(llm, Path("unused")), pieces, items),
        torch.from_numpy(pieces.answer.letters_C),
        num_steps=data.num_steps,
        learning_rate=1e-3,
        weight_decay=0.0,
        warmup_steps=numbers.warmup_steps,
        tokens_at_once=numbers.tokens_at_once,
    )
    return module, data


@pytest.mark.usefixtures("as_on_a_gpu")
@pytest.mark.parametrize("make", [sft, e4srec, llamarec])
def test_no_step_waits_for_the_device(
    make: Callable[[], Training], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module, data = make()
    # As on a GPU; otherwise AdamW reads its step counters, which are in host memory.
    monkeypatch.setattr(finetuning, "can_fuse", lambda parameters, trainer: True)
    window = Window(monkeypatch)
    trainers = StageTrainers(
        TrainerConfig("cpu", checkpoint_seconds=1e9),
        "x",
        tmp_path,
        checkpoints=Checkpoints(tmp_path / "c"),
        meter=Meter(),
    )
    trainer = trainers(max_epochs=1, llm=True, gradient_clip=1.0, callbacks=[window])
    trainer.limit_val_batches = 0
    # The bar reads the loss twice a second.
    monkeypatch.setattr(trainer_module, "NUMBERS_SECONDS", math.inf)
    trainer.fit(module, train_dataloaders=data.train_dataloader())
    assert window.launches > 100 * (window.LAST - window.FIRST)
    assert window.found == {}
