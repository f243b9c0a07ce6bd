"""What sharing saves a sweep: 4 backbones × 3 methods × 2 seeds through a SLURM of one node: `make bench-sweep`.

24 jobs, twice: into one artifacts folder, where each stage result that several runs need is computed once, and each
into a folder of its own; then the first again, which has nothing left to compute. The SLURM is a real one, started on
this machine (`tests/slurm/cluster.sh`: root, slurm-wlm, munge), a core for each job. A small generated market and the
tiny language model: what is counted and timed is the machinery, not the models. Ends with one line per figure,
`name value unit`, also in `results/bench/sweep.json`. The machine should do nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "results" / "bench" / "sweep.json"
CLUSTER = ROOT / "tests" / "slurm" / "cluster.sh"
METHODS, MODELS, SEEDS = ("base", "ci", "tslrec"), ("gru4rec", "caser", "sasrec", "fmlp"), (0, 1)
STAGES = {
    "base": ("data", "backbone"),
    "ci": ("data", "backbone", "preferences", "fusion"),
    "tslrec": ("data", "backbone", "preferences", "sft", "augment", "fusion"),
}
SETTINGS = ["data=synthetic", "data.reader.num_users=200", "data.reader.num_items=80", "llm=tiny", "preset=small"]
SETTINGS += ["preferences.num_clusters=8", "training.batch_size=256", "training.max_epochs=4"]
JOBS = ["launcher=slurm", "hydra.launcher.partition=debug", "hydra.launcher.mem_gb=2", "hydra.launcher.cpus_per_task=1"]
ALONE = ["artifacts=alone/${method.name}-${model.name}-${seed}", "hydra.sweep.dir=alone/sweeps"]
Figure = tuple[str, float, str]


def main(words: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--settings", nargs="*", default=[], metavar="KEY=VALUE", help="further ones, for all runs")
    arguments = parser.parse_args(words)
    # A socket's path must be short.
    folder = Path(tempfile.mkdtemp(prefix="sweep-", dir="/tmp"))
    try:
        started = subprocess.run([CLUSTER, "start", folder / "slurm"], stdout=subprocess.PIPE, text=True, check=True)
        name, value = started.stdout.strip().split("=")
        environment = {**os.environ, name: value, "HF_HUB_OFFLINE": "1", "TSLREC_CACHE": str(folder / "cache")}
        seconds = {}
        for way, settings in (("shared", []), ("rerun", []), ("alone", ALONE)):
            seconds[way] = sweep([*SETTINGS, *arguments.settings, *settings], folder, environment, way)
        made = {"shared": manifests(folder / "artifacts"), "alone": manifests(folder / "alone")}
    finally:
        subprocess.run([CLUSTER, "stop", folder / "slurm"], check=True)
        shutil.rmtree(folder)
    lines = figures(seconds, made)
    for name, number, unit in lines:
        print(name, f"{number:g}", unit)
    from tslrec.system.files import write_json

    RESULTS.parent.mkdir(parents=True, exist_ok=True)
    write_json(RESULTS, {"figures": {name: {"value": number, "unit": unit} for name, number, unit in lines}})
    print(RESULTS.relative_to(ROOT))


def sweep(settings: Sequence[str], folder: Path, environment: Mapping[str, str], way: str) -> float:
    """Runs all of them, which must succeed, and returns the seconds it took."""
    choices = [f"method={','.join(METHODS)}", f"model={','.join(MODELS)}", f"seed={','.join(map(str, SEEDS))}"]
    began = time.perf_counter()
    print(f"{way}:", flush=True)
    command = [sys.executable, str(ROOT / "train.py"), "-m", *choices, *settings, *JOBS]
    subprocess.run(command, cwd=folder, env=environment, check=True)
    return time.perf_counter() - began


def manifests(root: Path) -> list[dict[str, Any]]:
    """Those of all finished results below a folder."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(root.rglob("manifest.json"))]


def expected(*, shared: bool) -> Counter[str]:
    """How often each stage is computed if that is no oftener than needed; or once for each run that needs it."""
    if not shared:
        return Counter(stage for m in METHODS for stage in STAGES[m] for _ in MODELS for _ in SEEDS)
    once = Counter({"data": 1})
    for stage in ("backbone", "preferences", "sft", "augment"):
        once[stage] = len(MODELS) * len(SEEDS)
    once["fusion"] = len(MODELS) * len(SEEDS) * sum("fusion" in stages for stages in STAGES.values())
    return once


def figures(seconds: Mapping[str, float], made: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Figure]:
    """What was computed, and what it took.

    Raises:
        RuntimeError: if a stage was computed oftener than needed, or not at all.
    """
    for way in ("shared", "alone"):
        counts, wanted = Counter(each["stage"] for each in made[way]), expected(shared=way == "shared")
        if counts != wanted:
            raise RuntimeError(f"{way}: {dict(counts)} instead of {dict(wanted)}")
    work = {way: sum(float(each["wall_seconds"]) for each in made[way]) for way in made}
    lines: list[Figure] = [("sweep_runs", len(METHODS) * len(MODELS) * len(SEEDS), "runs")]
    for way in ("shared", "alone"):
        lines.append((f"sweep_stages_{way}", len(made[way]), "results"))
        lines.append((f"sweep_wall_{way}", round(seconds[way], 1), "s"))
        lines.append((f"sweep_in_stages_{way}", round(work[way], 1), "s"))
    lines.append(("sweep_wall_rerun", round(seconds["rerun"], 1), "s"))
    lines.append(("sweep_speedup", round(seconds["alone"] / seconds["shared"], 2), "x"))
    return lines


if __name__ == "__main__":
    main(sys.argv[1:])
