"""SFT steps of the 13B shape under ZeRO-3 with its weights in host memory: `llm13b_zero.py FOLDER DATA DEVICE`.

The step `zero3_offload` of the part `llm13b` starts it as a process of its own: it pins tens of gigabytes of host
memory, and DeepSpeed prints. Each line that begins with `FIGURE ` is a figure or a sentence in JSON.

ZeRO-3 copies every weight to the card for the forward pass and again for the backward pass, and once more where
activations are computed again, except what it still holds. So the floor of a step is what the plan counts of these
copies over the measured rate of a copy from pinned memory.
"""

from __future__ import annotations

import json
import math
import sys
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpu_parts.bench import Bench
from gpu_parts.llm13b_offload import FIGURE
from gpu_parts.llm13b_planned import planned_memory, planned_seconds
from gpu_parts.llm13b_sft_setup import calibration_sample, sft_groups, switch_checkpointing

if TYPE_CHECKING:
    from gpu_parts.random_llm import Subject

ZERO: dict[str, Any] = {"stage": 3, "offload_parameters": True, "offload_optimizer": True}
STRATEGY = {"_target_": "tslrec.training.deepspeed_zero.ZeroStrategy", **ZERO}
COPIED_GIB = 1 / 4


def main(folder: Path, data: Path, device: str, *, rehearse: bool) -> None:
    import torch

    from gpu_parts.random_llm import make_subject, preference_model, random_base, shape_gib
    from gpu_parts.timed_fit import Clock, Timed, loader, make_trainer
    from tslrec.llm.packing import ROW_LENGTH
    from tslrec.reports.costs.gathering import gathered_parameters
    from tslrec.stages.sft.module import PreferenceSFTModule

    bench = Bench(device, rehearse, folder, data)
    subject = make_subject(bench)
    weights = shape_gib(subject)
    copies = copy_rate(bench)
    figure("copy_rate_pinned", copies, "GB/s")
    # DeepSpeed learns the order of the modules in a group's first two steps and copies ahead from the third on.
    real = [(16, 5, ROW_LENGTH, False), (256, 4, ROW_LENGTH, True), (1024, 5, ROW_LENGTH, True)]
    tiny = [(16, 3, ROW_LENGTH, False), (48, 3, ROW_LENGTH, True)]
    groups = sft_groups(bench, subject, bench.sized(real, tiny), **ZERO_PLAN)
    bases: list[Any] = []

    def make_model() -> Any:
        began = time.perf_counter()
        bases.append(random_base(subject.shape, None))
        model = preference_model(subject, bases[0])
        figure("build", time.perf_counter() - began, "s")
        return model

    module = PreferenceSFTModule(
        make_model,
        torch.from_numpy(subject.targets_UK.mean(axis=0)),
        calibration_sample(subject),
        num_steps=sum(len(group.batches) for group in groups),
        learning_rate=subject.config.sft.learning_rate,
    )

    def tell(timed: Timed) -> None:
        name, rate = timed.group.name, bench.product_rate("bfloat16")
        checkpointing = timed.group.checkpointing
        planned = planned_memory(subject, timed.largest, gradient_checkpointing=checkpointing, **ZERO_PLAN)
        seconds = timed.seconds / timed.steps
        gathers = (
            gathered_parameters(subject.shape, gradient_checkpointing=checkpointing) / subject.shape.num_parameters
        )
        floor = gathers * weights * 2**30 / copies / 1e9
        expected = planned_seconds(subject, timed, **ZERO_PLAN)
        figure(f"{name}_step", seconds, "s", planned=expected, copy_floor=floor, copies=gathers)
        figure(f"{name}_copy_floor_share", 100 * floor / seconds, "%")
        figure(f"{name}_tokens_per_step", timed.cost.computed / timed.steps, "tokens")
        figure(f"{name}_tokens", timed.tokens_per_second, "tokens/s")
        figure(f"{name}_share_of_product_rate", 100 * timed.tflops / rate, "%", aim=20.0)
        if bench.on_card:
            figure(f"{name}_peak", timed.card, "GiB", planned=planned.allocated)
        figure(f"{name}_host_peak", timed.host, "GiB", planned=planned.host)

    clock = Clock(bench, groups, tell, lambda wanted: switch_checkpointing(bases[0], wanted))
    trainer = make_trainer(
        bench,
        "zero3",
        clock,
        gradient_clip=subject.config.sft.gradient_clip,
        strategy=STRATEGY
        if bench.on_card
        else {**STRATEGY, "persistence_threshold": 0, "process_group_backend": "gloo"},
        precision="bf16-true",
    )
    trainer.fit(module, train_dataloaders=loader(groups))
    parameters = list(bases[0].parameters())
    held = sum(each.ds_tensor.numel() * each.ds_tensor.element_size() for each in parameters) / 2**30
    figure("weights_in_host_memory", held, "GiB", planned=weights)
    # PyTorch pins a power of two of bytes for each parameter.
    rounded = sum(2 ** math.ceil(math.log2(each.ds_tensor.nbytes)) for each in parameters) / 2**30
    figure("weights_as_pinned", rounded, "GiB", planned=planned_host(subject))
    if bench.on_card:
        pinned = torch.cuda.host_memory_stats()
        figure("pinned_peak", pinned["allocated_bytes.peak"] / 2**30, "GiB", planned=planned_host(subject))
        figure("pinning", pinned["host_alloc_time.total"] / 1e6, "s")


def planned_host(subject: Subject) -> float:
    """The plan's GiB of host memory."""
    return planned_memory(subject, subject.plan.sft["shared"].tokens.largest, **ZERO_PLAN).host


ZERO_PLAN = {
    "zero_stage": ZERO["stage"],
    "offload_parameters": ZERO["offload_parameters"],
    "offload_optimizer": ZERO["offload_optimizer"],
}
"""The strategy in the words of the plan's `Placement`."""


def copy_rate(bench: Bench) -> float:
    """GB/s from pinned host memory to the card; in a rehearsal, of a copy in host memory."""
    import torch

    numbers = int(bench.sized(COPIED_GIB, COPIED_GIB / 64) * 2**30)
    host = torch.empty(numbers, dtype=torch.uint8, pin_memory=bench.on_card)
    there = torch.empty(numbers, dtype=torch.uint8, device=bench.device)
    seconds = bench.seconds(partial(there.copy_, host, non_blocking=True), repeats=5, warm_up=2)
    return numbers / seconds / 1e9


def figure(name: str, value: float, unit: str, **beside: float) -> None:
    """Sends a figure to the process that started this one."""
    print(FIGURE + json.dumps({"name": name, "value": value, "unit": unit, **beside}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], rehearse="--rehearse" in sys.argv[4:])
