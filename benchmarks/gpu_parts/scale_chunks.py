"""The step `chunk_sizes` of the part `scale`: the softmax with more or fewer logits held at a time."""

from __future__ import annotations

from functools import partial

from gpu_parts.bench import Bench
from gpu_parts.scale_losses import factors, ours
from gpu_parts.scale_market import BEAUTY_ITEMS


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
