"""The language model at the paper's own size, Llama-2-13B with random weights: its cost on one card.

The SFT and E4SRec run through the project's own modules and trainer, the augmentation through the function that fills
the knowledge store. A figure stands beside what `tslrec plan` says. The card's own rate is that of a large product in
bfloat16; a share of it is the plan's count of operations over the time and that rate.

LoRA on q and v adds ten small kernels to a layer that has about forty, forward and backward: with the 160 tokens of a
default step the card waits for their launches and for the 26 GB of weights, which each pass reads once.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpu_parts.bench import Bench, NotMeasuredError, Step

if TYPE_CHECKING:
    import lightning
    import torch

    from gpu_parts.random_llm import Subject
    from gpu_parts.timed_fit import Group, Timed
    from tslrec.reports.costs.activations import Step as PlannedStep
    from tslrec.reports.costs.memory import Memory
    from tslrec.reports.costs.placement import Placement

KEPT = "llm13b.json"
"""File in the bench's folder with the rates that `figure3` scales."""
USABLE = 0.92
"""Share of the card's memory that a group may be planned to take; another is not tried."""

_loaded: dict[str, Any] = {}
"""The subject and the language model, for the next step of this process; see `take_base` and `unload`."""


def subject_of(bench: Bench) -> Subject:
    """The subject, made once in this process."""
    from gpu_parts.random_llm import make_subject

    if "subject" not in _loaded:
        _loaded["subject"] = make_subject(bench)
    subject: Subject = _loaded["subject"]
    return subject


def take_base(bench: Bench, subject: Subject) -> Any:
    """The language model on the card, without LoRA: an earlier step's, or a new one.

    A step gives it back with `give_base` when it has ended well; after a failure nobody knows what is in it.
    """
    from gpu_parts.random_llm import random_base

    base = _loaded.pop("base", None)
    return random_base(subject.shape, bench.device) if base is None else base


def give_base(model: Any) -> None:
    """Takes LoRA off a model's language model and keeps that for the next step."""
    _loaded["base"] = model.adapted.unload()


def unload() -> None:
    """Frees the language model: another process is about to need the card, or nothing does any more."""
    _loaded.clear()
    gc.collect()


def keep(bench: Bench, name: str, value: Any) -> None:
    """Keeps a number for `figure3`, which may run in another process."""
    from tslrec.system.files import write_json

    path = bench.folder / KEPT
    write_json(path, {**kept(bench), name: value})


def kept(bench: Bench) -> dict[str, Any]:
    """What `keep` has kept."""
    path = bench.folder / KEPT
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def switch_checkpointing(base: Any, wanted: bool) -> None:
    """Turns gradient checkpointing on or off."""
    from tslrec.llm.gradient_checkpointing import checkpoint_layers

    for layer in base.layers:
        vars(layer).pop("forward", None)
    if wanted:
        checkpoint_layers(base)


def placement_with(subject: Subject, **changes: Any) -> Placement:
    """How the plan holds the language model, with some settings changed."""
    return replace(subject.plan.placement, **changes)


def planned_memory(subject: Subject, step: PlannedStep, *, rival: bool = False, **changes: Any) -> Memory:
    """The plan's memory for a step.

    Args:
        subject: what is measured.
        step: the largest.
        rival: of E4SRec's training; otherwise of the SFT's.
        changes: fields of `Placement`.
    """
    from tslrec.reports.costs.memory import training_memory

    config, plan = subject.config, subject.plan
    return training_memory(
        subject.shape,
        config.e4srec.lora if rival else config.llm.lora,
        plan.e4srec_trainable if rival else plan.trainable,
        step,
        placement_with(subject, **changes),
        num_items=plan.num_items,
        item_size=int(config.model["hidden_size"]),
    )


def planned_seconds(subject: Subject, timed: Timed, **changes: Any) -> float:
    """The plan's seconds of one step of a group; `changes` are fields of `Placement`."""
    from tslrec.reports.costs.timing import bound_of, training_traffic

    placement = placement_with(subject, gradient_checkpointing=timed.group.checkpointing, **changes)
    traffic = training_traffic(subject.shape, placement)
    found = bound_of(timed.cost.flops, timed.steps, traffic, subject.plan.device, in_16_bits=True)
    return found.seconds / timed.steps


def sft_groups(bench: Bench, subject: Subject, sizes: list[tuple[int, int, int, bool]], **changes: Any) -> list[Group]:
    """Groups of SFT steps.

    Args:
        bench: of the step.
        subject: what is measured.
        sizes: of each group: users per step, steps, length of a row in tokens, gradient checkpointing.
        changes: fields of `Placement`.
    """
    from gpu_parts.random_llm import SEED, adapter_parameters, cost_of
    from gpu_parts.timed_fit import Group
    from tslrec.data.batching import RandomBatches
    from tslrec.llm.packing import ROW_LENGTH, Packer
    from tslrec.stages.sft.data import PreferenceDataModule

    instruction, adapter = len(subject.prompt.instruction), adapter_parameters(subject)
    groups = []
    for users, steps, row_length, checkpointing in sizes:
        data = PreferenceDataModule(
            subject.interactions,
            subject.targets_UK,
            Packer(len(subject.prompt.response), row_length),
            max_len=subject.config.training.max_len,
            batch_size=users,
            seed=SEED,
        )
        name = f"users_{users}"
        name += "" if row_length == ROW_LENGTH else f"_rows_of_{row_length}"
        name += "_checkpointed" if checkpointing else ""
        batches = [batch for batch, _ in zip(RandomBatches(len(data.trained), users, SEED), range(steps), strict=False)]

        def count(batch: Any, checkpointing: bool = checkpointing) -> Any:
            return cost_of(
                subject.shape, batch.examples, instruction, adapter, training=True, checkpointing=checkpointing
            )

        group = Group(
            name,
            [partial(data.collate, data.trained[places]) for places in batches],
            count,
            # The first step of a group meets new sizes, for which memory is asked of the driver.
            warm_up=min(2, len(batches) - 1),
            checkpointing=checkpointing,
        )
        costs = [count(make()) for make in group.batches]
        largest = sum(costs[1:], start=costs[0]).largest
        planned = planned_memory(subject, largest, gradient_checkpointing=checkpointing, **changes)
        if fits(bench, name, planned.device):
            groups.append(group)
    return groups


def fits(bench: Bench, name: str, planned: float) -> bool:
    """Whether a group is planned to fit into the card's memory; says so if not."""
    if not bench.on_card:
        return True
    import torch

    there = torch.cuda.get_device_properties(0).total_memory / 2**30
    if planned > USABLE * there:
        bench.say(f"{name}: not tried, planned to take {planned:.1f} of the card's {there:.1f} GiB")
    return planned <= USABLE * there


def tell_training(bench: Bench, subject: Subject, kind: str, timed: Timed) -> None:
    """The figures of a group of training steps.

    Args:
        bench: of the step.
        subject: what is measured.
        kind: `sft` or `e4srec`.
        timed: the group.
    """
    name, rate = timed.group.name, bench.product_rate("bfloat16")
    share = 100 * timed.tflops / rate
    seconds = timed.seconds / timed.steps
    bench.figure(f"{name}_step", seconds, "s", planned=planned_seconds(subject, timed))
    bench.figure(f"{name}_tokens_per_step", timed.cost.computed / timed.steps, "tokens")
    bench.figure(f"{name}_tokens", timed.tokens_per_second, "tokens/s")
    bench.figure(f"{name}_tokens_without_padding", timed.cost.needed / timed.seconds, "tokens/s")
    bench.figure(f"{name}_rate", timed.tflops, "TFLOP/s")
    bench.figure(f"{name}_share_of_product_rate", share, "%", **({"aim": 45.0} if kind == "sft" else {}))
    if bench.on_card:
        memory = planned_memory(
            subject, timed.largest, rival=kind == "e4srec", gradient_checkpointing=timed.group.checkpointing
        )
        bench.figure(f"{name}_peak", timed.card, "GiB", planned=memory.allocated)
    keep(bench, f"{kind}/{name}", {"tokens_per_second": timed.tokens_per_second, "seconds_per_step": seconds})


def sft(bench: Bench) -> None:
    """SFT steps: default and larger batches, longer rows, gradient checkpointing."""
    import torch

    from gpu_parts.random_llm import preference_model
    from gpu_parts.timed_fit import Clock, loader, make_trainer
    from tslrec.llm.packing import ROW_LENGTH
    from tslrec.stages.sft.module import PreferenceSFTModule

    subject = subject_of(bench)
    bench.say(
        f"no tokenizer is here: prompts of {subject.plan.prompt} and {subject.plan.e4srec_prompt} tokens, estimated"
    )
    bench.figure("product_rate", bench.product_rate("bfloat16"), "TFLOP/s")
    base = take_base(bench, subject)
    # The groups without a longer row or gradient checkpointing first: what is wanted most.
    real = [
        (16, 14, ROW_LENGTH, False),
        (64, 8, ROW_LENGTH, False),
        (128, 6, ROW_LENGTH, False),
        (256, 5, ROW_LENGTH, False),
        (256, 5, 2 * ROW_LENGTH, False),
        (256, 5, 4 * ROW_LENGTH, False),
        (512, 4, ROW_LENGTH, False),
        (256, 4, ROW_LENGTH, True),
        (1024, 3, ROW_LENGTH, True),
    ]
    tiny = [(16, 3, ROW_LENGTH, False), (48, 3, 2 * ROW_LENGTH, False), (48, 3, ROW_LENGTH, True)]
    groups = sft_groups(bench, subject, bench.sized(real, tiny))
    model = preference_model(subject, base)
    module = PreferenceSFTModule(
        lambda: model,
        torch.from_numpy(subject.targets_UK.mean(axis=0)),
        calibration_sample(subject),
        num_steps=sum(len(group.batches) for group in groups),
        learning_rate=subject.config.sft.learning_rate,
    )
    clock = Clock(bench, groups, partial(tell_training, bench, subject, "sft"), partial(switch_checkpointing, base))
    trainer = make_trainer(bench, "sft", clock, gradient_clip=subject.config.sft.gradient_clip)
    trainer.fit(module, train_dataloaders=loader(groups))
    switch_checkpointing(base, False)
    give_base(model)


def calibration_sample(subject: Subject) -> Any:
    """The users by which the stage standardises the group head's inputs."""
    from gpu_parts.random_llm import SEED
    from tslrec.llm.packing import Packer
    from tslrec.stages.sft.data import PreferenceDataModule
    from tslrec.stages.sft.stage import CALIBRATION_USERS

    data = PreferenceDataModule(
        subject.interactions,
        subject.targets_UK,
        Packer(len(subject.prompt.response)),
        max_len=subject.config.training.max_len,
        batch_size=16,
        seed=SEED,
    )
    return data.sample(CALIBRATION_USERS)


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


def e4srec(bench: Bench) -> None:
    """E4SRec's training steps, and its inference for users."""
    from gpu_parts.random_llm import SEED, adapter_parameters, cost_of, next_item_model
    from gpu_parts.timed_fit import Clock, Group, loader, make_trainer
    from tslrec.data.batching import RandomBatches
    from tslrec.llm.packing import Packer
    from tslrec.stages.e4srec.data import InstanceDataModule
    from tslrec.stages.e4srec.module import E4SRecModule

    subject = subject_of(bench)
    base = take_base(bench, subject)
    numbers, instruction = subject.config.e4srec, len(subject.rival_prompt.instruction)
    adapter = adapter_parameters(subject, rival=True)

    def data_with(batch_size: int) -> InstanceDataModule:
        return InstanceDataModule(
            subject.interactions,
            Packer(len(subject.rival_prompt.response)),
            max_len=subject.config.training.max_len,
            batch_size=batch_size,
            eval_batch_size=numbers.eval_batch_size,
            seed=SEED,
        )

    def count(batch: Any) -> Any:
        return cost_of(subject.shape, batch.examples, instruction, adapter, training=True)

    trained = []
    for size, steps in bench.sized([(16, 14), (64, 8), (256, 5)], [(16, 3), (32, 3)]):
        data = data_with(size)
        batches = [
            places for places, _ in zip(RandomBatches(len(data.targets_N), size, SEED), range(steps), strict=False)
        ]
        makers = [partial(data.collate, places) for places in batches]
        group = Group(f"instances_{size}", makers, count, warm_up=min(2, len(makers) - 1))
        costs = [count(make()) for make in makers]
        planned = planned_memory(subject, sum(costs[1:], start=costs[0]).largest, rival=True)
        if fits(bench, group.name, planned.device):
            trained.append(group)
    model = next_item_model(subject, base)
    module = E4SRecModule(
        lambda: model,
        num_steps=sum(len(group.batches) for group in trained),
        learning_rate=numbers.learning_rate,
        weight_decay=numbers.weight_decay,
        warmup_steps=1,
    )
    clock = Clock(bench, trained, partial(tell_training, bench, subject, "e4srec"), lambda wanted: None)
    trainer = make_trainer(bench, "e4srec", clock, gradient_clip=numbers.gradient_clip)
    trainer.fit(module, train_dataloaders=loader(trained))

    def count_tested(batch: Any) -> Any:
        return cost_of(subject.shape, batch.examples, 0, adapter, training=False)

    tested, users = [], subject.interactions.evaluated_users
    for size, steps in bench.sized([(numbers.eval_batch_size, 6), (1024, 4)], [(16, 2), (32, 2)]):
        # Batches are sorted by length in the stage; here each is a sample of all lengths.
        samples = [users[start::steps][:size] for start in range(steps)]
        makers_of_users = [partial(data_with(16).collate_evaluation, sample, 1) for sample in samples]
        tested.append(Group(f"tested_{size}", makers_of_users, count_tested, warm_up=1))
    testing = Clock(bench, tested, partial(tell_inference, bench, subject), lambda wanted: None)
    tester = make_trainer(bench, "e4srec_test", testing, gradient_clip=numbers.gradient_clip)
    tester.test(module, dataloaders=loader(tested), verbose=False)
    give_base(model)


def tell_inference(bench: Bench, subject: Subject, timed: Timed) -> None:
    """The figures of a group of tested users."""
    name = timed.group.name
    plan = subject.plan.e4srec_inference["shared"]
    users = timed.steps * int(name.rpartition("_")[2])
    bench.figure(f"{name}", users / timed.seconds, "users/s", planned=plan.tokens.examples / plan.seconds)
    bench.figure(f"{name}_tokens", timed.tokens_per_second, "tokens/s")
    bench.figure(f"{name}_share_of_product_rate", 100 * timed.tflops / bench.product_rate("bfloat16"), "%")
    keep(bench, f"e4srec_inference/{name}", {"users_per_second": users / timed.seconds})


def figure3(bench: Bench) -> None:
    """Hours of both methods on the whole of Beauty, from the timed steps and the plan's counts."""
    subject, rates = subject_of(bench), kept(bench)
    missing = [kind for kind in ("sft", "augmentation", "e4srec", "e4srec_inference") if not of_kind(rates, kind)]
    if missing:
        raise NotMeasuredError(f"no rate of {', '.join(missing)} was measured in this run")
    numbers, items, tested = subject.config, subject.interactions.num_items, len(subject.interactions.evaluated_users)
    for way in ("default", "fastest"):
        sft_size, sft_rate = chosen(rates, "sft", "tokens_per_second", way)
        _, item_rate = chosen(rates, "augmentation", "items_per_second", way)
        rival_size, rival_rate = chosen(rates, "e4srec", "tokens_per_second", way)
        _, user_rate = chosen(rates, "e4srec_inference", "users_per_second", way)
        plan = subject.plan_with(sft=sft_size, e4srec=rival_size)
        tuned = numbers.sft.max_epochs * plan.sft["shared"].tokens.computed / sft_rate
        epoch = plan.e4srec["shared"].tokens.computed / rival_rate
        inferred = tested / user_rate
        ours = tuned + items / item_rate
        # Each epoch ends with a validation of all users.
        rivals = numbers.e4srec.max_epochs * (epoch + inferred) + inferred
        bench.say(f"{way}: SFT with {sft_size} users per step, E4SRec with {rival_size} instances per step")
        bench.figure(
            f"{way}_sft", tuned / 3600, "h", planned=numbers.sft.max_epochs * plan.sft["shared"].seconds / 3600
        )
        bench.figure(f"{way}_augmentation", items / item_rate / 3600, "h")
        bench.figure(f"{way}_e4srec_epoch", epoch / 3600, "h", planned=plan.e4srec["shared"].seconds / 3600)
        bench.figure(f"{way}_e4srec_inference", inferred / 3600, "h")
        bench.figure(f"{way}_tslrec_language_model", ours / 3600, "h")
        bench.figure(f"{way}_e4srec", rivals / 3600, "h", epochs=float(numbers.e4srec.max_epochs))
        bench.figure(f"{way}_e4srec_over_tslrec", rivals / ours, "x")


def of_kind(rates: dict[str, Any], kind: str) -> dict[str, Any]:
    """The kept rates of one kind, without those of longer rows or gradient checkpointing, by the examples per step."""
    found = {name.partition("/")[2]: value for name, value in rates.items() if name.startswith(f"{kind}/")}
    return {name: value for name, value in found.items() if name.count("_") == 1}


def chosen(rates: dict[str, Any], kind: str, measure: str, way: str) -> tuple[int, float]:
    """Examples per step, and the rate: of the smallest batch, the default one, or of the fastest."""
    by_size = {int(name.partition("_")[2]): float(value[measure]) for name, value in of_kind(rates, kind).items()}
    size = min(by_size) if way == "default" else max(by_size, key=lambda each: by_size[each])
    return size, by_size[size]


def zero3_offload(bench: Bench) -> None:
    """The same SFT steps with the weights in host memory, in a process of their own: `llm13b_zero.py`."""
    if find_spec("deepspeed") is None:
        raise NotMeasuredError("deepspeed is not installed")
    unload()
    if bench.on_card:
        import torch

        torch.cuda.empty_cache()
    bench.product_rate("bfloat16")
    script = Path(__file__).with_name("llm13b_zero.py")
    command = [
        sys.executable,
        str(script),
        str(bench.folder),
        str(bench.data),
        bench.device_name,
        *(["--rehearse"] if bench.rehearse else []),
    ]
    environment = {**os.environ, **({} if bench.on_card else {"DS_ACCELERATOR": "cpu"})}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    for line in process.stdout:
        # DeepSpeed prints much; it goes to the log.
        if not line.startswith(FIGURE):
            print(line, end="", file=sys.stderr)
            continue
        found = json.loads(line[len(FIGURE) :])
        if "say" in found:
            bench.say(found["say"])
        else:
            bench.figure(found.pop("name"), found.pop("value"), found.pop("unit"), **found)
    if code := process.wait():
        raise RuntimeError(f"llm13b_zero.py ended with code {code}")


FIGURE = "FIGURE "
"""Begins a line of `llm13b_zero.py` with a figure or a sentence."""


def weights_8bit_4bit(bench: Bench) -> None:
    """SFT steps on quantised weights: memory and rate."""
    if find_spec("bitsandbytes") is None:
        raise NotMeasuredError("bitsandbytes is not installed")
    if not bench.on_card:
        raise NotMeasuredError("bitsandbytes' 8- and 4-bit layers are measured on a card")
    import torch

    from gpu_parts.quantised_llm import quantised_base
    from gpu_parts.random_llm import preference_model
    from gpu_parts.timed_fit import Clock, loader, make_trainer
    from tslrec.llm.packing import ROW_LENGTH
    from tslrec.stages.sft.module import PreferenceSFTModule

    unload()
    subject = subject_of(bench)
    for bits in (8, 4):
        base = quantised_base(subject.shape, bits, bench.device)
        groups = sft_groups(bench, subject, [(16, 6, ROW_LENGTH, False), (256, 4, ROW_LENGTH, False)])
        model = preference_model(subject, base)
        module = PreferenceSFTModule(
            lambda model=model: model,  # type: ignore[misc]
            torch.from_numpy(subject.targets_UK.mean(axis=0)),
            calibration_sample(subject),
            num_steps=sum(len(group.batches) for group in groups),
            learning_rate=subject.config.sft.learning_rate,
        )

        def tell(timed: Timed, bits: int = bits) -> None:
            name = f"bits_{bits}_{timed.group.name}"
            planned = planned_memory(subject, timed.largest, weight_bits=bits)
            bench.figure(f"{name}_tokens", timed.tokens_per_second, "tokens/s")
            bench.figure(f"{name}_peak", timed.card, "GiB", planned=planned.allocated)

        trainer: lightning.Trainer = make_trainer(
            bench, f"bits_{bits}", Clock(bench, groups, tell, lambda wanted: None), gradient_clip=1.0
        )
        trainer.fit(module, train_dataloaders=loader(groups))
        del base, model, module, trainer
        gc.collect()
        torch.cuda.empty_cache()


STEPS: tuple[Step, ...] = (
    Step(
        "sft", 57, sft, "13B SFT steps of 16 to 1,024 users; tokens/s, share of the product rate, peak beside the plan"
    ),
    Step("augmentation", 14, augmentation, "items a second into the knowledge store"),
    Step("e4srec", 31, e4srec, "E4SRec's training steps and its inference"),
    Step("figure3", 4, figure3, "hours of both methods on the whole of Beauty"),
    Step("zero3_offload", 88, zero3_offload, "SFT steps with the weights in host memory; the copy's floor"),
    Step("weights_8bit_4bit", 12, weights_8bit_4bit, "SFT steps on quantised weights, where bitsandbytes is installed"),
)
