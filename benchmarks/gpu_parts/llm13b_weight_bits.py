"""The step `weights_8bit_4bit` of the part `llm13b`: SFT steps on quantised weights."""

from __future__ import annotations

import gc
from importlib.util import find_spec
from typing import TYPE_CHECKING

from gpu_parts.bench import Bench, NotMeasuredError
from gpu_parts.llm13b_loaded import subject_of, unload
from gpu_parts.llm13b_planned import planned_memory
from gpu_parts.llm13b_sft_setup import calibration_sample, sft_groups

if TYPE_CHECKING:
    import lightning

    from gpu_parts.timed_fit import Timed


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
