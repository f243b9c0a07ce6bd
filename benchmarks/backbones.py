"""The speed and memory of the project's backbones beside RecBole's and RecTools', on the same files: `make bench`.

One process measures one case of one side, never two at once, the sides in turn, and again for some rounds: a shared
machine's speed drifts by half within minutes, so a ratio is taken within each round and the median of them is reported.
RecTools is measured where it has the model: SASRec.
What is finished is kept in `results/bench/cases` and used again while the code that it measured is the same; `--fresh`
measures anew. Ends with one line per figure, `name value unit`, also in `results/bench/backbones.json`.

The machine should do nothing else meanwhile; its load is recorded.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from atomic_files import LAYOUTS, write_atomic
from cases import CASES, SIZES, Case, library_of
from report import Records, figures, of_rounds, tables
from tslrec.system.errors import UserError
from tslrec.system.files import write_json

ROOT = Path(__file__).resolve().parent.parent
HERE = ROOT / "benchmarks"
RESULTS = ROOT / "results" / "bench"
RECBOLE = ROOT / ".venv-recbole" / "bin" / "python"
RECTOOLS = ROOT / ".venv-rectools" / "bin" / "python"
PYTHONS = {"tslrec": Path(sys.executable), "recbole": RECBOLE, "rectools": RECTOOLS}
"""By library."""
BESIDE = {"beauty": "beauty/beauty.txt", "ml1m": "ml-1m/ml-1m.txt"}
SIDES = ("tslrec", "recbole", "rectools", "recbole_anomaly")
"""The last is RecBole as shipped, with autograd's anomaly mode on."""
DEFAULT_SIDES = ("tslrec", "recbole", "rectools")
WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
"""How threads wait for each other: spinning for a while, as for any user, unless the caller has it otherwise."""


def main(words: Sequence[str]) -> None:
    arguments = parse(words)
    cases = [case for case in CASES if not arguments.case or case.name in arguments.case]
    sides = arguments.side or DEFAULT_SIDES
    for library in dict.fromkeys(map(library_of, sides)):
        if not PYTHONS[library].exists():
            raise UserError(
                f"{PYTHONS[library]}: no environment of {library}; run make bench, or leave it out by --side tslrec"
            )
    wanted = {case.data for case in cases} & BESIDE.keys()
    files = {data: data_file(data, getattr(arguments, data)) for data in sorted(wanted)}
    environment = one_environment(arguments.threads)
    measured = Measurements(RESULTS / "cases", environment, quick=arguments.quick, fresh=arguments.fresh)

    gflops = json.loads(run([sys.executable, str(HERE / "floor.py")], environment, measured.folder / "floor.log"))
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for case in cases:
            compared = [side for side in sides if case.efforts()[library_of(side)] is not None]
            for turn in range(1 if arguments.quick or len(compared) == 1 else arguments.rounds):
                for side in compared:
                    measured.measure(case, side, turn, files.get(case.data), folder)
    records = measured.all(cases)
    check_counts(records)
    print("\n" + tables(records, cases, gflops["gflops"]))
    lines = figures(records, cases, gflops["gflops"])
    target = RESULTS / ("quick.json" if arguments.quick else "backbones.json")
    write_json(
        target,
        {
            "figures": {name: {"value": value, "unit": unit} for name, value, unit in lines},
            "records": records,
            "threads": arguments.threads,
            "waiting": {name: environment.get(name) for name in WAITING},
        },
    )
    print(f"\n{target.relative_to(ROOT)}")
    for name, value, unit in lines:
        print(name, f"{value:g}", unit)


def parse(words: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measures the backbones beside RecBole's and RecTools'.")
    parser.add_argument("--case", action="append", choices=[case.name for case in CASES], help="default: all")
    parser.add_argument("--side", action="append", choices=SIDES, help="default: all but the last")
    parser.add_argument("--beauty", type=Path, metavar="FILE", help="default: beside the checkout, or downloaded")
    parser.add_argument("--ml1m", type=Path, metavar="FILE", help="likewise")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="how often the sides take turns; default 3")
    parser.add_argument("--fresh", action="store_true", help="measure again what is measured already")
    parser.add_argument("--quick", action="store_true", help="a few batches, to see that everything runs")
    arguments = parser.parse_args(words)
    for name in ("threads", "rounds"):
        if getattr(arguments, name) < 1:
            parser.error(f"--{name}: one or more")
    return arguments


def data_file(data: str, given: Path | None) -> Path:
    """The raw file: the one that is given, one beside the checkout, or the project's own download."""
    beside = ROOT.parent / "shared" / "data" / BESIDE[data]
    if given is None and beside.exists():
        given = beside
    if given is not None and not given.is_file():
        raise UserError(f"{given}: there is no such file; give the raw file of {data} with --{data} FILE")
    from omegaconf import OmegaConf

    from tslrec.data.download import locate
    from tslrec.settings.data import DataConfig

    config = OmegaConf.to_container(OmegaConf.load(ROOT / "configs" / "data" / f"{data}.yaml"))
    assert isinstance(config, dict)
    config["path"] = None if given is None else str(given)
    schema = OmegaConf.merge(OmegaConf.structured(DataConfig), config)
    resolved = OmegaConf.to_object(schema)
    assert isinstance(resolved, DataConfig)
    cache = Path(os.environ.get("TSLREC_CACHE", "~/.cache/tslrec"))
    return locate(resolved, cache).resolve()


def one_environment(threads: int) -> dict[str, str]:
    """What all sides run in: the same threads, which wait alike (`WAITING`), and no GPU."""
    return {
        **os.environ,
        "OMP_NUM_THREADS": str(threads),
        "MKL_NUM_THREADS": str(threads),
        "CUDA_VISIBLE_DEVICES": "",
        "PYTHONPATH": str(ROOT / "src"),
        # RecBole reads its own checkpoints as pickles.
        "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1",
    }


class Measurements:
    """Records of cases on disk, made where they are missing.

    Args:
        folder: a JSON file and a log per case, side and round.
        environment: see `one_environment`.
        quick: measure only a few batches.
        fresh: do not use what is there.
    """

    def __init__(self, folder: Path, environment: dict[str, str], *, quick: bool, fresh: bool) -> None:
        self.folder = folder
        self.environment = environment
        self.quick = quick
        self.fresh = fresh
        folder.mkdir(parents=True, exist_ok=True)

    def path(self, case: Case, side: str, turn: int) -> Path:
        return self.folder / f"{case.name}.{side}.{'quick' if self.quick else turn}.json"

    def key(self, case: Case, side: str) -> str:
        """A digest of all that a record depends on but the machine: code, case, threads."""
        common = [HERE / "measure.py"]
        code = {
            "tslrec": [HERE / "side_tslrec.py", HERE / "floor.py", HERE / "growth.py", *(ROOT / "src").rglob("*.py")],
            "recbole": [HERE / "side_recbole.py", HERE / "fmlp_reference.py", HERE / "requirements-recbole.txt"],
            "rectools": [HERE / "side_rectools.py", HERE / "requirements-rectools.txt"],
        }[library_of(side)]
        settings = asdict(case)
        # One side's effort is no matter of the others'.
        for library in case.efforts().keys() - {library_of(side)}:
            del settings[library]
        threads = [self.environment.get(name) for name in ("OMP_NUM_THREADS", *WAITING)]
        state = hashlib.sha256(json.dumps([settings, SIZES[case.model], threads], sort_keys=True).encode())
        for path in sorted(common + code):
            state.update(path.read_bytes())
        return state.hexdigest()

    def find(self, case: Case, side: str, turn: int) -> dict[str, Any] | None:
        """The record of a round that is there, if it is of today's code and settings."""
        path = self.path(case, side, turn)
        if not path.exists():
            return None
        record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return record if record["key"] == self.key(case, side) else None

    def all(self, cases: Iterable[Case]) -> Records:
        found = {case.name: {side: self.rounds(case, side) for side in SIDES} for case in cases}
        return {
            name: {side: of_rounds(rounds) for side, rounds in sides.items() if rounds} for name, sides in found.items()
        }

    def rounds(self, case: Case, side: str) -> list[dict[str, Any]]:
        """The records of the rounds that there are, from the first one on."""
        found: list[dict[str, Any]] = []
        while (record := self.find(case, side, len(found))) is not None and not (self.quick and found):
            found.append(record)
        return found

    def measure(self, case: Case, side: str, turn: int, file: Path | None, folder: Path) -> None:
        """Runs one case of one side in a process of its own, unless it is measured already."""
        print(f"{case.name:22} {side:16}", end="", flush=True)
        if not self.fresh and self.find(case, side, turn) is not None:
            print("measured already")
            return
        # Before the run: code that is edited meanwhile is not what was measured.
        key = self.key(case, side)
        began, load = time.perf_counter(), os.getloadavg()[0]
        if side == "tslrec":
            command = [sys.executable, str(HERE / "side_tslrec.py")]
            command += [] if file is None else ["--path", str(file)]
        else:
            assert file is not None
            if not (folder / case.data).exists():
                write_atomic(case.data, file, folder)
            library = library_of(side)
            command = [str(PYTHONS[library]), str(HERE / f"side_{library}.py"), "--folder", str(folder)]
            command += ["--anomaly"] if side == "recbole_anomaly" else []
        kind = "quick" if self.quick else "again" if turn > 0 else "whole"
        command += ["--case", case.name, "--effort", kind]
        path = self.path(case, side, turn)
        record = json.loads(run(command, self.environment, path.with_suffix(".log")))
        record.update(key=key, load_average_before=round(load, 2))
        record["why_no_epoch"] = case.effort(side, kind).why_no_epoch
        write_json(path, record)
        print(f"epoch {record['epoch_seconds']:8.1f} s   (took {time.perf_counter() - began:.0f} s)")


def check_counts(records: Records) -> None:
    """Checks that all sides of a case are given for the same training targets, and rank the same users.

    Where a side's own epoch has fewer targets (`own_targets`), its seconds are already scaled to those of the case.
    """
    for name, of_sides in records.items():
        counts = {(record["targets"], record["evaluated_users"]) for record in of_sides.values()}
        assert len(counts) <= 1, f"{name}: the sides do not train and rank the same: {counts}"


def run(command: Sequence[str], environment: dict[str, str], log: Path) -> str:
    """The last line that a process prints; all else goes to the log.

    Raises:
        UserError: if it fails.
    """
    with log.open("w", encoding="utf-8") as errors:
        done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=errors, text=True, check=False)
        errors.write(done.stdout)
    lines = done.stdout.strip().splitlines()
    if done.returncode != 0 or not lines:
        raise UserError(f"{' '.join(command)}: ended with code {done.returncode}; {log} says why")
    return lines[-1]


if __name__ == "__main__":
    assert set(LAYOUTS) == set(BESIDE)
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
