"""The steps `training_64` and `training_256` of the part `scale`: training steps with all items, and with a sample."""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from gpu_parts.bench import Bench, matmul_precision
from gpu_parts.scale_market import market, sizes, targets_of
from gpu_parts.scale_softmax import say_kernel, share

if TYPE_CHECKING:
    from tslrec.data.sequence_batch import TrainingBatch

MAX_LEN = 50
NEGATIVES = 4096


@cache
def batch_of(num_users: int, num_items: int, targets: int) -> TrainingBatch:
    """One optimizer step's data, which every step gets: packed rows of whole histories."""
    from tslrec.data.datamodule import SequenceDataModule

    data = SequenceDataModule(
        market(num_users, num_items),
        max_len=MAX_LEN,
        batch_size=targets,
        eval_batch_size=512,
        all_positions=True,
        packed=True,
        seed=0,
        steps_per_epoch=1,
    )
    batch: TrainingBatch = next(iter(data.train_dataloader()))
    return batch


def training(bench: Bench, width: int, *, sampled: bool) -> tuple[Callable[[], Any], int]:
    """One optimizer step of SASRec on the market, again and again on the same batch, and its number of targets."""
    import torch
    from lightning.fabric.utilities import move_data_to_device

    from tslrec.models.backbones.sasrec import SASRec
    from tslrec.models.item_embedding import IdEmbedding
    from tslrec.training.next_item import NextItemModule
    from tslrec.training.sampled_softmax import NegativeSampler

    interactions = market(*sizes(bench))
    torch.manual_seed(0)
    # So the table is drawn on the card, not on a core.
    with bench.device:
        backbone = SASRec(
            IdEmbedding(interactions.num_items, width),
            interactions.num_users,
            MAX_LEN,
            num_layers=2,
            num_heads=2,
            inner_size=4 * width,
            hidden_dropout=0.2,
            attention_dropout=0.2,
        )
    sampler = None
    if sampled:
        negatives = bench.sized(NEGATIVES, 32)
        sampler = NegativeSampler(interactions.training_counts, num_negatives=negatives, exponent=0.75)
    module = NextItemModule(backbone, learning_rate=1e-3, weight_decay=0.0, sampler=sampler).to(bench.device)
    batch = move_data_to_device(batch_of(*sizes(bench), targets_of(bench)), bench.device)
    optimizer = module.configure_optimizers()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        module.training_step(batch, 0).backward()
        optimizer.step()

    return step, batch.num_targets


def time_step(bench: Bench, name: str, step: Callable[[], Any], targets: int) -> float:
    """Figures of one kind of training step; its seconds."""
    with bench.peak_memory() as peak:
        step()
        bench.synchronize()
    seconds = bench.seconds(step, repeats=bench.sized(8, 2), warm_up=bench.sized(2, 0))
    bench.figure(f"{name}_step", seconds, "s")
    bench.figure(f"{name}_targets", targets / seconds, "targets/s")
    bench.figure(f"{name}_peak", peak["card"], "GiB")
    return seconds


def training_steps(bench: Bench, width: int) -> None:
    """Training steps with all items, in float32 and with TF32 products, and with sampled negatives."""
    say_kernel(bench)
    step, targets = training(bench, width, sampled=False)
    seconds = time_step(bench, "full", step, targets)
    bench.figure("full_share", share(bench, 3, width, seconds), "%")
    with matmul_precision("high"):
        seconds = time_step(bench, "full_tf32", step, targets)
        bench.figure("full_tf32_share", share(bench, 3, width, seconds), "%")
    del step
    # A module refers to itself; without this it would count in the next peak.
    gc.collect()
    step, targets = training(bench, width, sampled=True)
    time_step(bench, "sampled", step, targets)
