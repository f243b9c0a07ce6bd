"""Everything that is to be measured on a GPU, in one script of at most ten minutes: `make gpu`.

    python benchmarks/gpu.py                  all parts, in the order of their worth
    python benchmarks/gpu.py --part check     one part
    python benchmarks/gpu.py --plan           the budgets of all steps; nothing runs
    python benchmarks/gpu.py --rehearse       every step on the CPU in tiny sizes, to see that it runs
    python benchmarks/gpu.py --rehearse --device cuda    the same on the card: what fails there, in two minutes

Each part runs in a process of its own. Each figure is printed and written to `results/bench/gpu.json` as soon as it is
measured. A step that fails, or takes longer than its budget, costs only itself: the next ones run. A run that was
killed measures only what is missing (`--fresh`: all of it). docs/gpu.md prepares a machine without a network.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

from gpu_parts.bench import Bench, NotMeasuredError, Step
from gpu_parts.following import RUNNING, STARTED, STEP, Budgets, follow
from gpu_parts.record import FAILED, MEASURED, NO_TIME_LEFT, NOT_MEASURED, Record, machine
from tslrec.system.errors import UserError
from tslrec.system.exits import run_program

ROOT = Path(__file__).resolve().parent.parent
PARTS = ("check", "llm13b", "backbones", "scale", "cells")
"""In the order in which they run, each a module of `gpu_parts` with its `STEPS`."""
LIMIT_SECONDS = 600
"""All budgets together stay below this."""
START_SECONDS = 8
"""Allowed for the start of a part's process: its imports and the card's context."""
LEAST_SECONDS = 5
"""A step is not started with less than this left."""


def steps_of(part: str) -> tuple[Step, ...]:
    """The steps of a part."""
    steps: tuple[Step, ...] = import_module(f"gpu_parts.{part}").STEPS
    return steps


@dataclass(frozen=True)
class Settings:
    """What a run was asked for; see the options of the command line."""

    rehearse: bool
    device: str
    slack: float
    folder: Path
    kit: Path
    data: Path
    until: float
    cells: tuple[str, ...]
    steps: tuple[str, ...]

    def command(self, part: str, steps: Sequence[str]) -> list[str]:
        """The command line of the process that runs steps of a part."""
        words = [sys.executable, __file__, "--part", part, "--inside", ",".join(steps), "--until", str(self.until)]
        words += ["--folder", str(self.folder), "--kit", str(self.kit), "--data", str(self.data)]
        words += [word for pattern in self.cells for word in ("--cells", pattern)]
        words += ["--device", self.device, "--slack", str(self.slack)]
        return words + (["--rehearse"] if self.rehearse else [])

    def environment(self) -> dict[str, str]:
        """Of the processes of the parts: the project, and what the kit brings where it is there."""
        own = [ROOT / "src", ROOT / "benchmarks"]
        carried = [self.kit / name for name in ("site", "weights", "quantized")]
        paths = [str(path) for path in (*carried, *own) if path.is_dir()]
        paths += [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
        golden = self.kit / "golden"
        reference = {"TSLREC_GOLDEN": str(golden)} if golden.is_dir() else {}
        return {**os.environ, **reference, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}


def main(words: Sequence[str]) -> None:
    arguments = parse(words)
    parts = arguments.part or list(PARTS)
    if arguments.plan:
        print(plan(parts))
        return
    until = arguments.until or time.time() + arguments.within
    folder, kit, data = (path.resolve() for path in (arguments.folder, arguments.kit, arguments.data))
    settings = Settings(
        arguments.rehearse,
        arguments.device,
        arguments.slack,
        folder,
        kit,
        data,
        until,
        cells=tuple(arguments.cells),
        steps=tuple(arguments.step),
    )
    if arguments.inside is not None:
        run_steps(parts[0], arguments.inside.split(","), settings)
        return
    if settings.device == "cuda":
        check_card()
    folder.mkdir(parents=True, exist_ok=True)
    record = Record(arguments.out, fresh=arguments.fresh)
    record.describe(machine(rehearse=settings.rehearse))
    for part in parts:
        run_part(part, record, settings)
    print(f"\n{arguments.out}")
    if bad := record.bad(parts):
        raise UserError(f"{len(bad)} step(s) failed: {', '.join(bad)}; {folder}/PART.log says why")


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=PARTS, help="default: all")
    parser.add_argument("--step", action="append", default=[], metavar="NAME", help="only steps of these names")
    parser.add_argument("--plan", action="store_true", help="print the budgets and end")
    parser.add_argument("--rehearse", action="store_true", help="tiny sizes, on the CPU unless --device names the card")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default cuda; of a rehearsal cpu")
    parser.add_argument("--slack", type=float, default=1.0, metavar="F", help="multiplies each step's budget")
    parser.add_argument("--fresh", action="store_true", help="measure again what is measured already")
    parser.add_argument("--within", type=float, default=LIMIT_SECONDS, metavar="S", help="for all parts; default 600")
    parser.add_argument(
        "--cells", action="append", default=[], metavar="PATTERN", help="run cells of these names, not the missing ones"
    )
    parser.add_argument("--kit", type=Path, default=ROOT / ".gpu" / "kit", help="as gpu_kit.py unpacks it")
    parser.add_argument("--data", type=Path, help="folder of the raw data files; default KIT/data, or ../shared/data")
    parser.add_argument("--folder", type=Path, help="scratch space; default artifacts/gpu")
    parser.add_argument("--out", type=Path, help="default results/bench/gpu.json; of a rehearsal FOLDER/gpu.json")
    parser.add_argument("--inside", help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    arguments = parser.parse_args(words)
    arguments.device = arguments.device or ("cpu" if arguments.rehearse else "cuda")
    arguments.folder = arguments.folder or ROOT / "artifacts" / ("gpu-rehearsal" if arguments.rehearse else "gpu")
    measured = ROOT / "results" / "bench" / "gpu.json"
    arguments.out = arguments.out or (arguments.folder / "gpu.json" if arguments.rehearse else measured)
    carried = arguments.kit / "data"
    arguments.data = arguments.data or (carried if carried.is_dir() else ROOT.parent / "shared" / "data")
    return arguments


def check_card() -> None:
    """Checks that there is a GPU.

    Raises:
        UserError: if there is none.
    """
    import torch

    if not torch.cuda.is_available():
        raise UserError(
            "make gpu: PyTorch sees no GPU here; make gpu-rehearse runs every step on the CPU in tiny sizes"
        )


def plan(parts: Sequence[str]) -> str:
    """The budgets of all steps as a table.

    Raises:
        UserError: if they add up to more than `LIMIT_SECONDS`.
    """
    lines, total = [f"{'part':11} {'step':24} {'seconds':>7}  what"], 0
    for part in parts:
        lines.append(f"{part:11} {'(start)':24} {START_SECONDS:7}  imports and the card's context")
        total += START_SECONDS
        for step in steps_of(part):
            lines.append(f"{'':11} {step.name:24} {step.seconds:7}{'+' if step.rest else ' '} {step.what}")
            total += step.seconds
    lines.append(f"{'together':36} {total:7}  below {LIMIT_SECONDS}; + a step that also gets what the others leave")
    if total >= LIMIT_SECONDS:
        raise UserError(f"the budgets add up to {total} s, not below {LIMIT_SECONDS}; lower some")
    return "\n".join(lines)


def run_part(part: str, record: Record, settings: Settings) -> None:
    """Runs the missing steps of a part; after a crash or a step out of time, the rest in a new process."""
    wanted = [step for step in steps_of(part) if not settings.steps or step.name in settings.steps]
    steps = {step.name: step for step in wanted if not record.done(part, step.name)}
    print(f"\n{part}" + ("" if steps else ": measured already"), flush=True)
    until = None if settings.device == "cpu" else settings.until
    while steps:
        command, log = settings.command(part, list(steps)), settings.folder / f"{part}.log"
        budgets = Budgets(until, settings.slack)
        for name in follow(command, settings.environment(), log, part, list(steps.values()), record, budgets):
            del steps[name]


def run_steps(part: str, names: Sequence[str], settings: Settings) -> None:
    """Runs steps in this process, one after the other; each tells what it has on standard output."""
    device = settings.device
    budgets = Budgets(settings.until, settings.slack)
    peers = settings.kit / "peers"
    for step in (step for step in steps_of(part) if step.name in names):
        bench = Bench(
            device,
            settings.rehearse,
            settings.folder,
            settings.data,
            peers if peers.is_dir() else None,
            ends=time.time() + budgets.allowed(step),
            cells=settings.cells,
            report=Telling(step.name),
        )
        if device == "cuda" and settings.until - time.time() < LEAST_SECONDS:
            bench.report(bench, NO_TIME_LEFT, "the time of the whole run is up")
            continue
        bench.report(bench, STARTED)
        try:
            step.run(bench)
        except NotMeasuredError as reason:
            bench.report(bench, NOT_MEASURED, str(reason))
        except Exception as error:
            # The next steps are worth measuring in any case; the script's exit code says that one has failed.
            traceback.print_exc()
            bench.report(bench, FAILED, f"{type(error).__name__}: {error}".splitlines()[0][:300])
        else:
            bench.report(bench, MEASURED)
        del bench
        free_card(device)


class Telling:
    """Tells the process that follows this one how far a step is, by a line of JSON.

    Args:
        step: its name.
    """

    def __init__(self, step: str) -> None:
        self.step = step
        self.began = time.perf_counter()

    def __call__(self, bench: Bench, ended: str = RUNNING, why: str = "") -> None:
        facts = {
            STEP: self.step,
            "ended": ended,
            "seconds": round(time.perf_counter() - self.began, 2),
            "figures": bench.figures,
            "lines": bench.lines,
            **({"why": why} if why else {}),
        }
        print(json.dumps(facts), flush=True)


def free_card(device: str) -> None:
    """Gives the memory of a step that has ended back to the card."""
    import gc

    gc.collect()
    if device == "cuda":
        import torch

        torch.cuda.empty_cache()


if __name__ == "__main__":
    run_program(lambda: main(sys.argv[1:]))
