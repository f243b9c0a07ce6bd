"""What sharing the prompt saves: preference SFT, augmentation and E4SRec, each both ways: `make bench-llm`.

The same random batches run the way the project runs them (the instruction once a step, the rest packed into rows) and
the naive way (a whole prompt for each example, padded to the longest of the batch). Both take turns, batch by batch,
since a shared machine drifts. SmolLM2-135M, the lengths of Beauty, random item embeddings and targets: what they hold
costs nothing. Ends with one line per figure, `name value unit`, also in `results/bench/llm.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "bench" / "llm.json"
NUM_CLUSTERS, ITEM_SIZE, SEED = 64, 64, 0
WAYS = ("shared", "naive")
Figure = tuple[str, float, str]


@dataclass(frozen=True)
class Task:
    """Something that is run both ways.

    Attributes:
        name: prefix of its figures.
        run: by way, runs one batch and returns how many tokens it computed.
        batches: what to run, the first not counted.
        plan: by way, what a whole epoch (or catalogue) computes.
    """

    name: str
    run: dict[str, Callable[[Any], int]]
    batches: Sequence[Any]
    plan: dict[str, Any]


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, default=24, help="of the SFT, both ways; default 24")
    parser.add_argument("--beauty", type=Path, metavar="FILE", help="default: beside the checkout, or downloaded")
    parser.add_argument("--llm", default="smollm2_135m", help="a name in configs/llm")
    arguments = parser.parse_args(words)
    os.environ.setdefault("OMP_NUM_THREADS", "2")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    floor = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "floor.py")], stdout=subprocess.PIPE, text=True, check=True
    )
    gflops = json.loads(floor.stdout.strip().splitlines()[-1])["gflops"]
    lines: list[Figure] = [("matrix_product_speed", rounded(gflops), "GFLOP/s")]
    for task in tasks(arguments.llm, arguments.beauty, arguments.batches):
        lines += figures(task, measure(task), gflops)
        for name, value, unit in lines[-LINES_PER_TASK:]:
            print(name, f"{value:g}", unit, flush=True)
    from tslrec.system.files import write_json

    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    write_json(RESULTS, {"figures": {name: {"value": value, "unit": unit} for name, value, unit in lines}})
    print(RESULTS.relative_to(ROOT))


def tasks(llm_name: str, file: Path | None, count: int) -> list[Task]:
    """Everything that is measured, with its models loaded."""
    import numpy as np
    import torch

    from backbones import data_file
    from side_tslrec import load_file
    from tslrec.evaluation.preference_fit import squared_error
    from tslrec.llm.weights_source import resolve
    from tslrec.pipeline.composition import compose_overrides
    from tslrec.reports.costs.forecast import prompt_tokens
    from tslrec.reports.costs.work import make_plan
    from tslrec.stages.e4srec.data import InstanceDataModule
    from tslrec.stages.e4srec.model import new_e4srec
    from tslrec.stages.sft.data import PreferenceDataModule
    from tslrec.stages.sft.loading import new_model
    from tslrec.system.memory import keep_freed_memory, use_large_pages

    keep_freed_memory()
    use_large_pages()
    config = compose_overrides(["data=beauty", f"llm={llm_name}", "preset=small"])
    interactions = load_file("beauty", data_file("beauty", file))
    source = resolve(config.llm, Path(config.cache))
    torch.manual_seed(SEED)
    table_ID = torch.randn(interactions.num_items + 1, ITEM_SIZE)
    targets_UK = np.random.default_rng(SEED).dirichlet(np.ones(NUM_CLUSTERS), interactions.num_users).astype("float32")
    ours, rivals, exact = prompt_tokens(config)
    plan = make_plan(
        config, interactions.train_lengths, interactions.num_items, ours, rivals, prompts_are_exact=exact, seed=SEED
    )
    sft, augmentation, e4srec, e4srec_inference = {}, {}, {}, {}
    for way in WAYS:
        config.llm.shared_prefix = way == "shared"
        model = new_model(config.llm, source, table_ID, NUM_CLUSTERS).train()
        data = PreferenceDataModule(
            interactions, targets_UK, model.packer, max_len=50, batch_size=config.sft.batch_size, seed=SEED
        )
        sft[way] = training(
            model,
            data.collate,
            lambda model, batch: squared_error(model(batch.examples).logits_BK, batch.targets_BK).mean(),
        )
        augmentation[way] = inference(model, lambda model, items: model.packer(list(items[:, None])))
        rival = new_e4srec(config.llm, config.e4srec.lora, source, table_ID).train()
        instances = InstanceDataModule(
            interactions,
            rival.packer,
            max_len=50,
            batch_size=config.e4srec.batch_size,
            eval_batch_size=config.e4srec.eval_batch_size,
            seed=SEED,
        )
        e4srec[way] = training(rival, instances.collate, lambda model, batch: next_item_loss(model, batch))
        e4srec_inference[way] = inference(rival, partial(tested, instances))
    users, positions = data.batches.indices, instances.batches.indices
    size = config.sft.augment_batch_size
    catalogue = [np.arange(1 + i * size, 1 + (i + 1) * size) for i in range(max(3, count // 8))]
    size = config.e4srec.eval_batch_size
    tested_users = [np.arange(i * size, (i + 1) * size) for i in range(max(3, count // 8))]
    return [
        Task("sft", sft, [batch for batch, _ in zip(users, range(count + 1), strict=False)], plan.sft),
        Task("augmentation", augmentation, catalogue, plan.augmentation),
        Task(
            "e4srec", e4srec, [batch for batch, _ in zip(positions, range(count // 2 + 1), strict=False)], plan.e4srec
        ),
        # After its training, which changes what the shared prefix holds.
        Task("e4srec_inference", e4srec_inference, tested_users, plan.e4srec_inference),
    ]


def next_item_loss(model: Any, batch: Any) -> Any:
    """Cross-entropy over all items, a target."""
    from tslrec.training.losses import softmax_loss

    return softmax_loss(model(batch.examples), model.item_head.weight, batch.targets_B) / len(batch.targets_B)


def training(model: Any, collate: Callable[[Any], Any], loss: Callable[[Any, Any], Any]) -> Callable[[Any], int]:
    """One optimizer step as the stage takes it, clipping included."""
    import torch

    parameters = model.trainable_parameters()
    optimizer = torch.optim.AdamW(parameters, lr=1e-4)

    def run(users: Any) -> int:
        batch = collate(users)
        optimizer.zero_grad()
        loss(model, batch).backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        return computed(model, batch.examples)

    return run


def inference(model: Any, pack: Callable[[Any, Any], Any]) -> Callable[[Any], int]:
    """A pass over examples without training; the shared prefix is run once for all of them, as in the stages."""
    import torch

    prefix = None

    @torch.inference_mode()
    def run(batch: Any) -> int:
        nonlocal prefix
        model.eval()
        if model.shared_prefix and prefix is None:
            prefix = model.run_prefix()
        examples = pack(model, batch)
        model(examples, prefix)
        return computed(model, examples) - (len(model.instruction_P) if model.shared_prefix else 0)

    return run


def tested(instances: Any, model: Any, users: Any) -> Any:
    """What E4SRec is shown of users in the test; packed by the model's own packer, as all of its examples."""
    return instances.collate_evaluation(users, held_out=1).examples


def computed(model: Any, examples: Any) -> int:
    """Tokens that a batch computes, padding included."""
    rows, width = examples.tokens_RT.shape
    instruction = len(model.instruction_P)
    return int(rows * width + instruction if model.shared_prefix else rows * (width + instruction))


def measure(task: Task) -> dict[str, list[tuple[float, int]]]:
    """Seconds and tokens of each batch, both ways in turn."""
    found: dict[str, list[tuple[float, int]]] = {way: [] for way in WAYS}
    for batch in task.batches:
        for way in WAYS:
            began = time.perf_counter()
            tokens = task.run[way](batch)
            found[way].append((time.perf_counter() - began, tokens))
    return {way: timed[1:] for way, timed in found.items()}


LINES_PER_TASK = 12


def figures(task: Task, timed: dict[str, list[tuple[float, int]]], gflops: float) -> list[Figure]:
    """Speed-up, the ratio of tokens, and per way what an epoch takes and how near the floor it is."""
    lines: list[Figure] = []
    for way, batches in timed.items():
        rate = sum(tokens for _, tokens in batches) / sum(seconds for seconds, _ in batches)
        work = task.plan[way]
        seconds = work.tokens.computed / rate
        lines += [
            (f"{task.name}_tokens_per_second_{way}", rounded(rate), "tokens/s"),
            (f"{task.name}_whole_{way}", rounded(seconds), "s"),
            (f"{task.name}_tokens_{way}", work.tokens.computed, "tokens"),
            (f"{task.name}_floor_share_{way}", rounded(100 * work.flops / gflops / 1e9 / seconds), "%"),
        ]
    pairs = list(zip(timed["naive"], timed["shared"], strict=True))
    speedup = sum(naive for (naive, _), _ in pairs) / sum(shared for _, (shared, _) in pairs)
    median = statistics.median(naive / shared for (naive, _), (shared, _) in pairs)
    ratio = sum(tokens for (_, tokens), _ in pairs) / sum(tokens for _, (_, tokens) in pairs)
    return [
        *lines,
        (f"{task.name}_speedup", rounded(speedup), "x"),
        (f"{task.name}_speedup_of_the_median_batch", rounded(median), "x"),
        (f"{task.name}_token_ratio", rounded(ratio), "x"),
        (f"{task.name}_speedup_share", rounded(100 * speedup / ratio), "%"),
    ]


def rounded(value: float) -> float:
    """Four significant digits: more is noise."""
    return float(f"{value:.4g}")


if __name__ == "__main__":
    main(sys.argv[1:])
