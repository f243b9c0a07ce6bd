"""The step `sft` of the part `llm13b`: SFT steps on the card."""

from __future__ import annotations

from functools import partial

from gpu_parts.bench import Bench
from gpu_parts.llm13b_loaded import give_base, subject_of, take_base
from gpu_parts.llm13b_sft_setup import calibration_sample, sft_groups, switch_checkpointing
from gpu_parts.llm13b_training_figures import tell_training


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
