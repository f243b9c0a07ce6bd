"""A catalogue of a million items on one machine: seconds and peak memory of ingestion, training and evaluation.

    python benchmarks/scale.py                      10 million interactions, 1 million users, 1 million items
    python benchmarks/scale.py --interactions 200000 --users 20000 --items 20000 --steps 20     a trial
    python benchmarks/scale.py --format csv --ingestion-only        ingestion of CSV, and nothing else

Generates a market, writes it as Parquet or CSV, ingests it and runs the backbone stage with a sampled
softmax for a part of an epoch, one validation and one test. Prints a line per figure, `name value unit`, and writes
`results/bench/scale.json`. Peaks are of the whole process, imports included.

Shapes: N interactions, U users, I items, K categories.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tslrec.config import Config
from tslrec.pipeline.artifacts import ArtifactStore
from tslrec.pipeline.check import check, check_catalogue
from tslrec.pipeline.composition import register_schema, to_config
from tslrec.pipeline.recipes import stage_seed
from tslrec.pipeline.run import ingest_data
from tslrec.system.errors import UserError
from tslrec.system.exits import run_program
from tslrec.system.files import write_json
from tslrec.system.memory import keep_freed_memory, use_large_pages
from tslrec.system.meter import Meter, peak_memory_gib, reset_peak_memory

if TYPE_CHECKING:
    import lightning

    from tslrec.data.interactions import Interactions

CHECKOUT = Path(__file__).resolve().parent.parent
LIMIT_GIB = 8.0
NUM_CATEGORIES = 64
POPULARITY = 0.8
"""Exponent of the power law of an item's rank within its category."""
FAVOURITE, FOLLOW = 0.7, 0.3
"""How likely a user takes an item of one of two favourite categories, and the successor of the item before."""
MIN_LENGTH = 3


class Figures:
    """What was measured, printed as it comes."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, Any]] = {}
        self.began = 0.0
        self.next_phase(None)

    def add(self, name: str, value: float, unit: str) -> None:
        self.values[f"scale/{name}"] = {"value": round(value, 4), "unit": unit}
        print(f"scale/{name} {value:.4g} {unit}" if unit != "count" else f"scale/{name} {value:.0f} {unit}", flush=True)

    def next_phase(self, ended: str | None) -> None:
        """Seconds and peak memory of the phase that ends, unless it has no name; the next one begins."""
        if ended is not None:
            self.add(f"{ended}/seconds", time.perf_counter() - self.began, "s")
            self.add(f"{ended}/peak_memory", peak_memory_gib(), "GiB")
        reset_peak_memory()
        self.began = time.perf_counter()

    @property
    def largest_gib(self) -> float:
        return max(each["value"] for each in self.values.values() if each["unit"] == "GiB")


def phases(figures: Figures) -> lightning.Callback:
    """Tells setup, training, validation and test of a stage apart; what comes after the test is left open."""
    from lightning.pytorch.callbacks import LambdaCallback

    def next_phase(ended: str | None) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            figures.next_phase(ended)

        return hook

    return LambdaCallback(
        on_train_epoch_start=next_phase("setup"),
        on_validation_start=next_phase("training"),
        on_validation_end=next_phase("validation"),
        on_test_start=next_phase(None),
        on_test_end=next_phase("test"),
    )


def market(path: Path, *, num_interactions: int, num_users: int, num_items: int, seed: int) -> None:
    """Writes a generated market as Parquet or CSV (user, item, timestamp), rows in the order of time as a log has them.

    Users have two favourite categories, items a popularity by a power law within theirs, and some items are followed by
    their successor. Every item occurs.
    """
    import numpy as np
    import polars as pl

    draw = np.random.default_rng(seed)
    lengths_U = MIN_LENGTH + draw.poisson(num_interactions / num_users - MIN_LENGTH, size=num_users)
    users_N = np.repeat(np.arange(num_users), lengths_U)
    size = len(users_N)
    favourites_UK = draw.integers(NUM_CATEGORIES, size=(num_users, 2))
    favourite_N = favourites_UK[users_N, draw.integers(2, size=size)]
    category_N = np.where(draw.random(size) < FAVOURITE, favourite_N, draw.integers(NUM_CATEGORIES, size=size))
    per_category = num_items // NUM_CATEGORIES
    cumulative = np.cumsum(1 / np.arange(1, per_category + 1) ** POPULARITY)
    rank_N = np.searchsorted(cumulative, draw.random(size) * cumulative[-1])
    items_N = np.minimum(rank_N, per_category - 1) * NUM_CATEGORIES + category_N
    follows_N = (draw.random(size) < FOLLOW) & (np.diff(users_N, prepend=-1) == 0)
    items_N = np.where(follows_N, (np.roll(items_N, 1) + NUM_CATEGORIES) % num_items, items_N)
    items_N[draw.choice(size, num_items, replace=False)] = np.arange(num_items)
    times_N = draw.integers(10**12, size=size)
    times_N = times_N[np.lexsort((times_N, users_N))]
    order = np.argsort(times_N, kind="stable")
    table = pl.DataFrame({"user": users_N[order], "item": items_N[order], "timestamp": times_N[order]})
    if path.suffix == ".csv":
        table.write_csv(path)
    else:
        table.write_parquet(path)


def configuration(arguments: argparse.Namespace, path: Path) -> Config:
    """The run that a person would start for such a catalogue."""
    from hydra import compose, initialize_config_dir

    register_schema()
    with initialize_config_dir(str(CHECKOUT / "configs"), version_base="1.3"):
        return to_config(
            compose(
                "train",
                overrides=[
                    "method=base",
                    f"data={arguments.format}",
                    "preset=small",
                    f"model={arguments.model}",
                    f"data.path={path}",
                    f"training.batch_size={arguments.batch_size}",
                    f"training.num_negatives={arguments.negatives}",
                    f"training.steps_per_epoch={arguments.steps}",
                    "training.max_epochs=1",
                    f"training.validation_users={arguments.validation_users}",
                    f"training.test_users={arguments.test_users}",
                ],
            )
        )


def train_and_evaluate(config: Config, interactions: Interactions, folder: Path, figures: Figures) -> None:
    """The backbone stage as the pipeline runs it."""
    import lightning

    from tslrec.stages import backbone
    from tslrec.stages.context import StageContext
    from tslrec.training.checkpoints import Checkpoints
    from tslrec.training.trainer import StageTrainers

    seed = stage_seed(config.seed, "backbone")
    lightning.seed_everything(seed, verbose=False)
    kept, meter = Checkpoints(folder / "checkpoints"), Meter()
    make_trainer = StageTrainers(config.trainer, "scale", folder, checkpoints=kept, meter=meter)

    def with_phases(*, callbacks: Sequence[lightning.Callback] = (), **options: Any) -> lightning.Trainer:
        # Last, so that copying the best weights is part of the validation.
        return make_trainer(callbacks=[*callbacks, phases(figures)], **options)

    figures.next_phase("imports")
    metrics = backbone.run(StageContext(config, interactions, seed, folder, {}, with_phases, kept, meter))
    figures.next_phase("writing")
    figures.add("validation/users", metrics["validation/users"], "count")
    figures.add("test/users", metrics["test/users"], "count")
    figures.add("test/NDCG@10", metrics["test/masked/NDCG@10"], "masked")


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--interactions", type=int, default=10_000_000)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--items", type=int, default=1_000_000)
    parser.add_argument("--format", choices=("parquet", "csv"), default="parquet", help="of the file that is ingested")
    parser.add_argument("--ingestion-only", action="store_true", help="measure nothing after ingestion")
    parser.add_argument("--model", default="sasrec")
    parser.add_argument("--batch-size", type=int, default=4096, help="training targets of a step")
    parser.add_argument("--negatives", type=int, default=4096)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--validation-users", type=int, default=2_000)
    parser.add_argument("--test-users", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=CHECKOUT / "results" / "bench" / "scale.json")
    parsed = parser.parse_args(arguments)
    if parsed.items % NUM_CATEGORIES:
        parser.error(f"--items must be a multiple of {NUM_CATEGORIES}")
    if parsed.interactions < max(2 * parsed.items, (MIN_LENGTH + 1) * parsed.users):
        parser.error(f"--interactions must be at least twice --items and {MIN_LENGTH + 1} times --users")
    return parsed


def main(arguments: Sequence[str]) -> None:
    parsed = parse(arguments)
    keep_freed_memory()
    use_large_pages()
    figures = Figures()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        path = folder / f"market.{parsed.format}"
        market(
            path,
            num_interactions=parsed.interactions,
            num_users=parsed.users,
            num_items=parsed.items,
            seed=parsed.seed,
        )
        figures.next_phase("generation")
        config = configuration(parsed, path)
        check(config)
        figures.next_phase("check")
        _, interactions = ingest_data(config, ArtifactStore(folder / "artifacts"))
        figures.next_phase("ingestion")
        check_catalogue(config, interactions.num_items)
        figures.add("users", interactions.num_users, "count")
        figures.add("items", interactions.num_items, "count")
        figures.add("interactions", interactions.num_interactions, "count")
        if not parsed.ingestion_only:
            stage = folder / "backbone"
            stage.mkdir()
            train_and_evaluate(config, interactions, stage, figures)
            seconds = figures.values["scale/training/seconds"]["value"]
            figures.add("training/steps", parsed.steps, "count")
            figures.add("training/step", seconds / parsed.steps, "s")
    figures.add("peak_memory", figures.largest_gib, "GiB")
    parsed.out.parent.mkdir(parents=True, exist_ok=True)
    settings = {key: str(value) if isinstance(value, Path) else value for key, value in vars(parsed).items()}
    settings["threads"] = os.environ.get("OMP_NUM_THREADS")
    del settings["out"]
    machine = {key: value for key, value in Meter().facts().items() if key in ("created", "machine", "packages")}
    write_json(parsed.out, {"settings": settings, "figures": figures.values, **machine})
    if figures.largest_gib > LIMIT_GIB:
        raise UserError(f"benchmarks/scale.py: {figures.largest_gib:.2f} GiB at its peak, more than {LIMIT_GIB:g}")


if __name__ == "__main__":
    run_program(lambda: main(sys.argv[1:]))
