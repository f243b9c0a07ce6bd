"""The step `augmentation` of the part `llm13b`: items through the language model into the knowledge store.

Shapes: R items of a batch, D hidden size of the backbone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpu_parts.bench import Bench
from gpu_parts.llm13b_loaded import give_base, subject_of, take_base
from gpu_parts.llm13b_rates import keep

if TYPE_CHECKING:
    import torch


def augmentation(bench: Bench) -> None:
    """Items a second, as the knowledge store is filled."""
    import numpy as np
    import torch

    from gpu_parts.random_llm import adapter_parameters, cost_of, preference_model
    from tslrec.stages.shard_filling import augment

    subject = subject_of(bench)
    model = preference_model(subject, take_base(bench, subject)).to(bench.device).eval()
    with torch.inference_mode():
        prefix = model.run_prefix()
    default = subject.config.sft.augment_batch_size
    for size in bench.sized([default, 4 * default, 16 * default], [16, 32]):
        # A catalogue smaller than the batch begins again.
        items_RD = subject.table_ID[1 + torch.arange(size) % subject.interactions.num_items]
        cost = cost_of(
            subject.shape,
            model.packer(list(np.arange(1, size + 1)[:, None])),
            0,
            adapter_parameters(subject),
            training=False,
        )

        def run(items_RD: torch.Tensor = items_RD) -> None:
            augment(model, items_RD, batch_size=len(items_RD), prefix=prefix)

        with bench.peak_memory() as peak:
            seconds = bench.seconds(run, repeats=bench.sized(4, 1), warm_up=1)
        plan = subject.plan_with(augment=size).augmentation["shared"]
        batches = plan.tokens.examples / size
        bench.figure(f"items_{size}", size / seconds, "items/s", planned=plan.tokens.examples / plan.seconds)
        bench.figure(
            f"items_{size}_share_of_product_rate",
            100 * cost.flops / seconds / 1e12 / bench.product_rate("bfloat16"),
            "%",
        )
        bench.figure(f"items_{size}_catalogue", batches * seconds, "s", planned=plan.seconds)
        if bench.on_card:
            bench.figure(f"items_{size}_peak", peak["card"], "GiB")
        keep(bench, f"augmentation/items_{size}", {"items_per_second": size / seconds})
    give_base(model.train())
