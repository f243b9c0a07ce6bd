"""A million items: the softmax over all of them, and over a sample.

Shapes: T targets of a step, I items (row 0 of the table is padding), D size of a user vector, B users, S (user, item)
pairs of histories, N interactions, U users of the market.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from functools import cache, partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from gpu_parts.bench import Bench, NotMeasuredError, Step, matmul_precision

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from tslrec.data.interactions import Interactions
    from tslrec.data.sequence_batch import TrainingBatch

MEAN_LENGTH = 10
"""Interactions of a user, all of them alike: it is the number of items that makes this data set large."""
MAX_LEN = 50
TARGETS, NEGATIVES = 4096, 4096
EVALUATED_USERS = 4096
BEAUTY_ITEMS = 12_101
SKEW = 3
"""An item's number is (a uniform draw)^3 of all: a fifth of the items gets 0.2^(1/3) = 58 % of the interactions."""


def sizes(bench: Bench) -> tuple[int, int]:
    """Users and items."""
    return bench.sized((1_000_000, 1_000_000), (200, 300))


def targets_of(bench: Bench) -> int:
    """T."""
    return bench.sized(TARGETS, 64)


@cache
def market(num_users: int, num_items: int) -> Interactions:
    """Random histories of `MEAN_LENGTH` items, some items more popular than others, and every item in it once."""
    import numpy as np

    from tslrec.data.interactions import IdMap, Interactions

    size = num_users * MEAN_LENGTH
    draw = np.random.default_rng(0)
    items_N = skewed(draw.random(size, dtype=np.float32), num_items)
    items_N[draw.choice(size, num_items, replace=False)] = np.arange(1, num_items + 1)
    return Interactions(
        name="scale",
        items=items_N,
        offsets=np.arange(num_users + 1, dtype=np.int64) * MEAN_LENGTH,
        ids=IdMap(tuple(map(str, range(num_users))), ("", *map(str, range(num_items)))),
    )


def skewed(uniform_N: np.ndarray, num_items: int) -> np.ndarray:
    """Item ids from numbers in [0, 1)."""
    import numpy as np

    return np.minimum((num_items * uniform_N**SKEW).astype(np.int32), num_items - 1) + 1


def say_kernel(bench: Bench) -> None:
    """Says whether the Triton kernel runs here; the figures mean something else without it."""
    from tslrec.training.softmax_on_device import fused_exponentiate

    fused = bench.on_card and fused_exponentiate() is not None
    bench.say("softmax: Triton kernel" if fused else "softmax: PyTorch's own operations, no Triton kernel")


def share(bench: Bench, products: int, width: int, seconds: float) -> float:
    """Percent of the card's own rate of float32 products: those over all items, for a step's targets."""
    flops = 2 * products * targets_of(bench) * sizes(bench)[1] * width
    return 100 * flops / seconds / 1e12 / bench.product_rate("float32")


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


def factors(bench: Bench, num_items: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """User vectors and an item table, with gradient, whose logits have a standard deviation of 2, and targets."""
    import torch

    torch.manual_seed(0)
    user_TD = torch.randn(targets_of(bench), width, device=bench.device)
    table_ID = torch.randn(num_items + 1, width, device=bench.device).mul_(2 / math.sqrt(width))
    targets_T = torch.randint(1, num_items + 1, (targets_of(bench),), device=bench.device)
    return user_TD.requires_grad_(), table_ID.requires_grad_(), targets_T


Loss = tuple["Tensor", "Tensor", "Tensor"]
"""The summed loss, and the gradients of both factors."""


def differentiated(loss: Tensor, user_TD: Tensor, table_ID: Tensor) -> Loss:
    import torch

    grad_user_TD, grad_table_ID = torch.autograd.grad(loss, (user_TD, table_ID))
    return loss.detach(), grad_user_TD, grad_table_ID


def ours(user_TD: Tensor, table_ID: Tensor, targets_T: Tensor) -> Loss:
    from tslrec.training.losses import softmax_loss

    return differentiated(softmax_loss(user_TD, table_ID, targets_T), user_TD, table_ID)


def ours_without_kernel(user_TD: Tensor, table_ID: Tensor, targets_T: Tensor) -> Loss:
    import torch

    from tslrec.training.softmax_on_device import exponentiate_plainly, softmax_on_device

    with torch.no_grad():
        loss, grad_user_TD, grad_table_ID = softmax_on_device(
            user_TD, table_ID, targets_T, None, need_user=True, need_table=True, exponentiate=exponentiate_plainly
        )
    assert grad_user_TD is not None
    assert grad_table_ID is not None
    return loss, grad_user_TD, grad_table_ID


def pytorch(user_TD: Tensor, table_ID: Tensor, targets_T: Tensor) -> Loss:
    """Holds all logits, and three times so many numbers at its peak."""
    import torch.nn.functional as F

    loss = F.cross_entropy(user_TD @ table_ID[1:].T, targets_T - 1, reduction="sum")
    return differentiated(loss, user_TD, table_ID)


def liger(user_TD: Tensor, table_ID: Tensor, targets_T: Tensor) -> Loss:
    from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

    loss = LigerFusedLinearCrossEntropyLoss(reduction="sum")(table_ID[1:], user_TD, targets_T - 1)
    return differentiated(loss, user_TD, table_ID)


def cut_cross_entropy(user_TD: Tensor, table_ID: Tensor, targets_T: Tensor) -> Loss:
    from cut_cross_entropy import linear_cross_entropy

    loss = linear_cross_entropy(user_TD, table_ID[1:], targets_T - 1, reduction="sum", filter_eps=None)
    return differentiated(loss, user_TD, table_ID)


def time_loss(bench: Bench, name: str, way: Callable[..., Loss], given: tuple[Tensor, ...]) -> Loss | None:
    """Figures of one way to compute the loss and its gradients: seconds, and the memory that it needs beside its input.

    Returns:
        What it gave; None if the card is too small for it.
    """
    import torch

    before = torch.cuda.memory_allocated() / 2**30 if bench.on_card else 0.0
    try:
        with bench.peak_memory() as peak:
            found = way(*given)
            bench.synchronize()
        seconds = bench.seconds(lambda: way(*given), repeats=bench.sized(4, 1), warm_up=0)
    except torch.OutOfMemoryError:
        bench.say(f"{name}: does not fit this card")
        return None
    bench.figure(f"{name}_loss", seconds, "s")
    bench.figure(f"{name}_memory", peak["card"] - before, "GiB")
    return found


def compare(bench: Bench, name: str, found: Loss, wanted: Loss) -> None:
    """Figures of how far a way is from another: of the loss, relative, and of gradients, relative to the largest."""
    loss, *gradients = (
        float((one - other).abs().max() / other.abs().max()) for one, other in zip(found, wanted, strict=True)
    )
    bench.figure(f"{name}_loss_difference", loss, "relative")
    bench.figure(f"{name}_gradient_difference", max(gradients), "relative")


def losses(bench: Bench) -> None:
    """The loss and its gradients alone: ours, ours without its kernel, PyTorch's cross-entropy."""
    import torch

    say_kernel(bench)
    given = factors(bench, sizes(bench)[1], 64)
    found = time_loss(bench, "ours", ours, given)
    assert found is not None
    bench.figure("ours_share", share(bench, 3, 64, bench.figures["ours_loss"]["value"]), "%")
    again = ours(*given)
    differing = sum(int((one != other).sum()) for one, other in zip(again, found, strict=True))
    bench.figure("ours_again_differing", differing, "count")
    del again
    with matmul_precision("high"):
        rounded = time_loss(bench, "ours_tf32", ours, given)
        bench.figure("ours_tf32_share", share(bench, 3, 64, bench.figures["ours_tf32_loss"]["value"]), "%")
    for name, other in (("tf32", rounded), ("without_kernel", time_loss(bench, "plain", ours_without_kernel, given))):
        assert other is not None
        compare(bench, name, other, found)
    del rounded, other
    if bench.on_card:
        # What earlier ways left in the allocator's cache would be missing here.
        torch.cuda.empty_cache()
    whole = time_loss(bench, "pytorch", pytorch, given)
    if whole is not None:
        compare(bench, "pytorch", whole, found)


def peers(bench: Bench) -> None:
    """The two known kernels, where they are installed."""
    ways = {"liger_kernel": liger, "cut_cross_entropy": cut_cross_entropy}
    missing = [name for name in ways if find_spec(name) is None]
    if not bench.on_card or len(missing) == len(ways):
        raise NotMeasuredError(f"not installed: {', '.join(missing)}" if missing else "their kernels need a GPU")
    given = factors(bench, sizes(bench)[1], 64)
    wanted = ours(*given)
    for name, way in ways.items():
        if name in missing:
            bench.say(f"{name}: not installed")
            continue
        found = time_loss(bench, name, way, given)
        if found is not None:
            compare(bench, name, found, wanted)


def captured(bench: Bench) -> None:
    """The loss as a CUDA graph: whether it can be captured, gives the same, and what its launches cost without."""
    import torch

    from tslrec.training.softmax_on_device import softmax_on_device

    user_TD, table_ID, targets_T = factors(bench, bench.sized(BEAUTY_ITEMS, 300), 64)
    weights_T = torch.ones(len(targets_T), device=bench.device)

    def work() -> tuple[Tensor | None, ...]:
        with torch.no_grad():
            return softmax_on_device(user_TD, table_ID, targets_T, weights_T, need_user=True, need_table=True)

    eager = work()
    bench.figure("eager", bench.seconds(work, repeats=bench.sized(20, 1)), "s")
    if not bench.on_card:
        raise NotMeasuredError("a CUDA graph needs a GPU")
    graph = torch.cuda.CUDAGraph()
    bench.synchronize()
    with torch.cuda.graph(graph):
        made = work()
    graph.replay()
    bench.synchronize()
    pairs = [(one, other) for one, other in zip(made, eager, strict=True) if one is not None and other is not None]
    bench.figure("graph_differing", sum(int((one != other).sum()) for one, other in pairs), "count")
    bench.figure("graph", bench.seconds(graph.replay, repeats=20), "s")


def chunk_sizes(bench: Bench) -> None:
    """How many bytes of logits are best held at a time: for Beauty's items, and the least users for a million."""
    import torch

    from tslrec.training import softmax_on_device as module

    kept = module.CHUNK_BYTES, module.LEAST_USERS
    few, many = bench.sized((BEAUTY_ITEMS, 1_000_000), (300, 900))
    tried = [(few, mebi, 64) for mebi in (16, 64, 256)] + [(many, 0, users) for users in (128, 256, 512)]
    for num_items, mebi, users in tried:
        given = factors(bench, num_items, 64)
        try:
            module.CHUNK_BYTES, module.LEAST_USERS = mebi * 2**20, users
            seconds = bench.seconds(partial(ours, *given), repeats=bench.sized(5, 1), warm_up=1)
        finally:
            module.CHUNK_BYTES, module.LEAST_USERS = kept
        held = f"{mebi}_mib" if mebi else f"{users}_users"
        bench.figure(f"{num_items}_items_{held}", seconds, "s")
        del given
        if bench.on_card:
            torch.cuda.empty_cache()


def evaluation(bench: Bench) -> None:
    """Ranks of targets among a million items, for some thousand users with their histories."""
    import torch

    from tslrec.evaluation.ranking import target_ranks

    num_items, users = sizes(bench)[1], bench.sized(EVALUATED_USERS, 20)
    torch.manual_seed(0)
    user_BD = torch.randn(users, 64, device=bench.device)
    table_ID = torch.randn(num_items + 1, 64, device=bench.device)
    targets_B = torch.randint(1, num_items + 1, (users,), device=bench.device)
    seen_rows_S = torch.arange(users, device=bench.device).repeat_interleave(MEAN_LENGTH)
    seen_items_S = torch.randint(1, num_items + 1, (len(seen_rows_S),), device=bench.device)

    def work() -> None:
        target_ranks(user_BD, table_ID, targets_B, seen_rows_S, seen_items_S)

    with bench.peak_memory() as peak:
        work()
        bench.synchronize()
    seconds = bench.seconds(work, repeats=bench.sized(4, 1), warm_up=bench.sized(1, 0))
    bench.figure("users", users / seconds, "users/s")
    rate = 2 * users * num_items * 64 / seconds / 1e12
    bench.figure("share", 100 * rate / bench.product_rate("float32"), "%")
    bench.figure("peak", peak["card"], "GiB")


STEPS: tuple[Step, ...] = (
    Step("training_64", 20, lambda bench: training_steps(bench, 64), "SASRec d 64, 4,096 targets: all items, a sample"),
    Step("losses", 10, losses, "the softmax alone, beside PyTorch's: seconds, memory, differences"),
    Step("evaluation", 6, evaluation, "4,096 users ranked among a million items"),
    Step("training_256", 10, lambda bench: training_steps(bench, 256), "SASRec d 256, 4,096 targets"),
    Step("captured", 4, captured, "the softmax over Beauty's items as a CUDA graph"),
    Step("chunk_sizes", 6, chunk_sizes, "logits held at a time"),
    Step("peers", 4, peers, "Liger and cut-cross-entropy, where they are installed"),
)
