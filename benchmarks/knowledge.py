"""A million items through the language model by two processes that are killed once: `make bench-knowledge`.

    python benchmarks/knowledge.py                       1 million items
    python benchmarks/knowledge.py --items 20032         a trial

Generates a market with that many items and what the stages before the augmentation leave: random item embeddings,
clusters and centroids, and the tiny language model with a random adapter, each published under the key that the
pipeline asks for. No recommender is trained; what is measured reads these files as it would those of a training.

Then the pipeline's stages up to the augmentation run as for `trainer.devices=2`: the first process finds what is there
and has Lightning start the other. Once a random share of the shards is done both get SIGKILL; the same command again
does the rest. Prints a line per figure, `name value unit`, and writes `results/bench/knowledge.json`. Peaks are of
whole processes, imports included; they are sampled, and the kernel's own high-water marks.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from knowledge_inputs import configuration, prepare
from tslrec.pipeline.artifacts import ArtifactStore
from tslrec.system import processes
from tslrec.system.errors import UserError
from tslrec.system.exits import run_program
from tslrec.system.files import write_json
from tslrec.system.memory import keep_freed_memory, use_large_pages
from tslrec.system.meter import Meter, peak_memory_gib

CHECKOUT = Path(__file__).resolve().parent.parent
OUT = CHECKOUT / "results" / "bench" / "knowledge.json"
LIMIT_GIB = 4.0
SAMPLED_SHARDS = 5
POLL_SECONDS = 0.1
SIGHTINGS = 5
FEWEST, MOST = 0.2, 0.8
"""Of the shards, between which both processes are killed."""


def run_stages(folder: Path) -> None:
    """One process of the job: the method's stages as the pipeline runs them, of which only the last is not there."""
    from tslrec.llm.weights_source import resolve
    from tslrec.pipeline.method_run import MethodRun
    from tslrec.pipeline.run import ingest_data

    job, first = processes.join_job(), processes.is_rank_zero()
    if not first:
        processes.mute_rank()
    config = configuration(folder)
    store = ArtifactStore(folder / "artifacts", job, first)
    data, interactions = ingest_data(config, store)
    source = resolve(config.llm, Path(config.cache))
    MethodRun(config, config, store, data, interactions, source).run()


def read_store(folder: Path) -> None:
    """The fusion's item embedding over the finished store, and the peak of the process that builds it."""
    from tslrec.knowledge.store import KnowledgeStore
    from tslrec.models.fusions.gate import GatedFusion

    store = KnowledgeStore.open(folder)
    fusion = GatedFusion(store.num_items, 64, knowledge_IH=store.table())
    table = fusion.knowledge_IH.numel() * fusion.knowledge_IH.element_size()
    parameters = sum(each.numel() * each.element_size() for each in fusion.parameters())
    print(peak_memory_gib(), table / 2**30, parameters / 2**30)


@dataclass
class Job:
    """Two processes, watched from outside."""

    process: subprocess.Popen[str]
    began: float = field(default_factory=time.perf_counter)
    seen: dict[int, list[float]] = field(default_factory=dict)

    @classmethod
    def start(cls, folder: Path) -> Job:
        command = [sys.executable, str(Path(__file__).resolve()), "--stages", str(folder)]
        return cls(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))

    def watch(self) -> bool:
        """Whether it still runs; looks at the memory of its processes, which are known from then on."""
        for pid in {*self.pids(), *self.seen}:
            status = Path(f"/proc/{pid}/status")
            try:
                lines = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
            except (FileNotFoundError, ProcessLookupError):
                continue
            if "VmHWM" in lines:
                self.seen.setdefault(pid, []).append(int(lines["VmHWM"].split()[0]) / 2**20)
        time.sleep(POLL_SECONDS)
        return self.process.poll() is None

    def pids(self) -> list[int]:
        """The first process, and those that it started with the same command."""
        first = self.process.pid
        children = Path(f"/proc/{first}/task/{first}/children")
        try:
            started = [int(child) for child in children.read_text().split()]
            commands = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid in started}
        except (FileNotFoundError, ProcessLookupError):
            return [first]
        return [first, *(pid for pid, command in commands.items() if "--stages" in command)]

    def kill(self) -> None:
        """SIGKILL to both."""
        import os

        for pid in self.pids():
            os.kill(pid, signal.SIGKILL)
        self.process.communicate()

    @property
    def peaks(self) -> dict[int, float]:
        """Of each process; one that was seen but for a moment is a fork on its way to another program."""
        return {pid: max(sizes) for pid, sizes in self.seen.items() if len(sizes) >= SIGHTINGS}

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.began


Shards = dict[int, tuple[int, int]]
"""By number: which file on the disk, and when it was written."""


def shards_in(folder: Path, pattern: str) -> Shards:
    found = {}
    for path in folder.glob(pattern):
        number = path.parent.name if path.parent.name.startswith("shard-") else path.stem
        status = path.stat()
        found[int(number.rsplit("-", 1)[1])] = (status.st_ino, status.st_mtime_ns)
    return found


class Figures:
    """What was measured, printed as it comes."""

    def __init__(self) -> None:
        self.values: dict[str, dict[str, Any]] = {}

    def add(self, name: str, value: float, unit: str) -> None:
        self.values[f"knowledge/{name}"] = {"value": round(value, 4), "unit": unit}
        print(f"knowledge/{name} {value:.0f} {unit}" if unit == "count" else f"knowledge/{name} {value:.4g} {unit}")
        sys.stdout.flush()


def measure(folder: Path, figures: Figures, *, num_items: int, share: float, seed: int) -> None:
    """Two runs, of which the first is killed, and what came of them."""
    size = configuration(folder).sft.augment_shard_size
    total = -(-num_items // size)
    figures.add("items", num_items, "count")
    figures.add("shards", total, "count")
    in_the_making = "artifacts/augment/*.checkpoints/shard-*/knowledge.safetensors"
    job = Job.start(folder)
    while len(shards_in(folder, in_the_making)) < share * total:
        if not job.watch():
            raise UserError(f"benchmarks/knowledge.py: the run ended by itself: {job.process.communicate()[0]}")
    job.kill()
    first_run = shards_in(folder, in_the_making)
    report_run(figures, "killed", job, len(first_run), size)

    again = Job.start(folder)
    while again.watch():
        continue
    said = again.process.communicate()[0]
    if again.process.returncode != 0:
        raise UserError(f"benchmarks/knowledge.py: the second run failed: {said}")
    (store,) = (path.parent for path in folder.glob("artifacts/augment/*/store.json"))
    finished = shards_in(store, "knowledge-*.safetensors")
    report_run(figures, "resumed", again, total - len(first_run), size)
    figures.add("computed_twice", sum(finished[number] != file for number, file in first_run.items()), "count")
    by_process = processes_of(store)
    new = [by_process[number] for number in range(total) if number not in first_run]
    for place, pid in enumerate(sorted(set(new), key=lambda pid: pid != again.process.pid)):
        figures.add(f"resumed/shards/process_{place}", new.count(pid), "count")
    differ, compared = differing(store, folder, draw=random.Random(seed))
    figures.add("differing", differ, "count")
    figures.add("differing/of", compared, "count")
    output = subprocess.run(
        [sys.executable, str(Path(__file__).resolve()), "--read", str(store)],
        capture_output=True,
        text=True,
        check=True,
    )
    peak, table, parameters = (float(each) for each in output.stdout.split())
    figures.add("fusion/peak_memory", peak, "GiB")
    figures.add("fusion/its_frozen_table", table, "GiB")
    figures.add("fusion/its_parameters", parameters, "GiB")
    both = [sum(job.peaks.values()), sum(again.peaks.values())]
    figures.add("peak_memory/process", max(*job.peaks.values(), *again.peaks.values()), "GiB")
    figures.add("peak_memory/together", max(both), "GiB")


def report_run(figures: Figures, name: str, job: Job, shards: int, size: int) -> None:
    figures.add(f"{name}/shards", shards, "count")
    figures.add(f"{name}/seconds", job.seconds, "s")
    figures.add(f"{name}/items_a_second", shards * size / job.seconds, "1/s")
    for place, peak in enumerate(job.peaks.values()):
        figures.add(f"{name}/peak_memory/process_{place}", peak, "GiB")


def processes_of(store: Path) -> list[int]:
    """Which process computed each shard."""
    from tslrec.knowledge.store import KnowledgeStore

    return [shard.process for shard in KnowledgeStore.open(store).shards]


def differing(store: Path, folder: Path, *, draw: random.Random) -> tuple[int, int]:
    """Items of a sample of shards whose rows are not, to the bit, those that this process computes, uninterrupted.

    Returns:
        How many, and of how many.
    """
    import torch

    from tslrec.knowledge.store import CATEGORIES, KnowledgeStore
    from tslrec.llm.weights_source import resolve
    from tslrec.stages.outputs import item_embeddings
    from tslrec.stages.sft.loading import load_trained
    from tslrec.stages.shard_filling import augment

    config = configuration(folder)
    found = KnowledgeStore.open(store)
    (backbone,) = (folder / "artifacts" / "backbone").glob("*/item_embeddings.safetensors")
    (sft,) = (folder / "artifacts" / "sft").glob("*/heads.safetensors")
    items_ID = item_embeddings(backbone.parent)
    source = resolve(config.llm, Path(config.cache))
    model = load_trained(sft.parent, config.llm, source, torch.zeros(1, items_ID.shape[1]))
    with torch.inference_mode():
        prefix = model.run_prefix()
    differ, compared, size = 0, 0, config.sft.augment_shard_size
    for shard in draw.sample(range(len(found.shards)), min(SAMPLED_SHARDS, len(found.shards))):
        rows = slice(1 + shard * size, min(1 + (shard + 1) * size, len(items_ID)))
        knowledge_RH, categories_RK = augment(
            model, found.scaling(items_ID[rows]), batch_size=config.sft.augment_batch_size, prefix=prefix
        )
        same_R = (found.table()[rows] == knowledge_RH).all(dim=1)
        same_R &= (found.table(CATEGORIES)[rows] == categories_RK).all(dim=1)
        differ += int((~same_R).sum())
        compared += len(same_R)
    return differ, compared


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--items", type=int, default=1_000_000, help="a multiple of 64")
    parser.add_argument("--seed", type=int, default=random.randrange(2**31), help="of the moment of the kill, too")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--stages", type=Path, metavar="FOLDER", help=argparse.SUPPRESS)
    parser.add_argument("--read", type=Path, metavar="STORE", help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> None:
    parsed = parse(arguments)
    keep_freed_memory()
    use_large_pages()
    if parsed.stages is not None:
        run_stages(parsed.stages)
        return
    if parsed.read is not None:
        read_store(parsed.read)
        return
    figures = Figures()
    share = random.Random(parsed.seed).uniform(FEWEST, MOST)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, num_items=parsed.items, seed=parsed.seed)
        measure(folder, figures, num_items=parsed.items, share=share, seed=parsed.seed)
    parsed.out.parent.mkdir(parents=True, exist_ok=True)
    machine = {key: value for key, value in Meter().facts().items() if key in ("created", "machine", "packages")}
    write_json(
        parsed.out, {"settings": {"items": parsed.items, "seed": parsed.seed}, "figures": figures.values, **machine}
    )
    value = {name: each["value"] for name, each in figures.values.items()}
    if value["knowledge/computed_twice"] or value["knowledge/differing"]:
        raise UserError("benchmarks/knowledge.py: shards were computed twice, or differ from an uninterrupted run's")
    if value["knowledge/peak_memory/together"] > LIMIT_GIB:
        raise UserError(f"benchmarks/knowledge.py: more than {LIMIT_GIB:g} GiB in both processes together")


if __name__ == "__main__":
    run_program(lambda: main(sys.argv[1:]))
