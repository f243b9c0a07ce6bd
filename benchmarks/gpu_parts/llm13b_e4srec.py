"""The step `e4srec` of the part `llm13b`: E4SRec's training steps and its inference.

Shapes: N instances.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from gpu_parts.bench import Bench
from gpu_parts.llm13b_loaded import give_base, subject_of, take_base
from gpu_parts.llm13b_planned import fits, planned_memory
from gpu_parts.llm13b_rates import keep
from gpu_parts.llm13b_training_figures import tell_training

if TYPE_CHECKING:
    from gpu_parts.random_llm import Subject
    from gpu_parts.timed_fit import Timed


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
