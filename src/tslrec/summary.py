"""Recorded runs side by side: runs that differ by their seed alone are one row, with mean and standard deviation."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tslrec.check import SECTIONS
from tslrec.choices import choice, choice_place
from tslrec.config import section_defaults
from tslrec.errors import UserError

Names = tuple[str, str, str, str]
"""Data set, backbone, preset, method."""
REMOVED_SETTINGS: Mapping[str, Any] = {}
"""Settings that are no more, by their key, with the value that everything is computed by now.

A recorded result that had this value is of the same settings as one from today.
"""
NO_DIFFERENCE = frozenset({"_target_", "title", "place"})
"""Last parts of keys in which results may differ and be of the same settings."""


@dataclass(frozen=True)
class Row:
    """Runs of one method with one setting.

    Attributes:
        data: the data set's name.
        model: the backbone's; with that of the preferences where it is another.
        preset: its name.
        method: its name.
        differs: what tells this row from others with the same names.
        seeds: of the runs, rising.
        metrics: of each run, in the order of the seeds.
    """

    data: str
    model: str
    preset: str
    method: str
    differs: str
    seeds: tuple[int, ...]
    metrics: tuple[Mapping[str, Any], ...]

    @property
    def names(self) -> Names:
        return self.data, self.model, self.preset, self.method

    def values(self, metric: str) -> list[float]:
        return [float(each[metric]) for each in self.metrics]

    def mean(self, metric: str) -> float:
        return statistics.fmean(self.values(metric))

    def deviation(self, metric: str) -> float | None:
        """The seeds' standard deviation (with n - 1); None of a single one."""
        return statistics.stdev(self.values(metric)) if len(self.seeds) > 1 else None


def summarise(results: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Rows by data set, backbone, preset and method, of the results of runs as `result.json` holds them."""
    groups: dict[Names, dict[str, dict[int, Mapping[str, Any]]]] = {}
    for result in results:
        seeds = groups.setdefault(names_of(result), {}).setdefault(json.dumps(setting(result)), {})
        seeds[int(result["seed"])] = result["metrics"]
    rows = []
    for names, settings in sorted(groups.items(), key=lambda item: (item[0][:3], choice_place("method", item[0][3]))):
        flat = {text: json.loads(text) for text in settings}
        for text, seeds in settings.items():
            ordered = sorted(seeds)
            metrics = tuple(seeds[seed] for seed in ordered)
            data, model, preset, method = names
            differs = differences(flat[text], flat.values())
            rows.append(Row(data, model, preset, method, differs, tuple(ordered), metrics))
    return rows


def read_results(root: Path, *, none_is_an_error: bool = True) -> Iterator[Mapping[str, Any]]:
    """What the runs below an artifacts folder reached, the latest last.

    Raises:
        UserError: if there is none, where that is an error, or one cannot be read.
    """
    paths = sorted((root / "runs").glob("*/result.json"), key=lambda path: path.stat().st_mtime)
    if not paths and none_is_an_error:
        raise UserError(f"{root}: no finished run; name the folder that artifacts=FOLDER named")
    for path in paths:
        yield from read_result(path)


def read_result(path: Path) -> list[Mapping[str, Any]]:
    """The methods of one run, as its `result.json` holds them.

    Raises:
        UserError: if it cannot be read.
    """
    try:
        results: list[Mapping[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["results"]
        for result in results:
            names_of(result), setting(result), result["metrics"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: not the result of a run ({error!r}); delete its folder") from error
    return results


def names_of(result: Mapping[str, Any]) -> Names:
    model, source = str(result["model"]), str(result["source_model"])
    return str(result["data"]), model if source == model else f"{model} ({source})", result["preset"], result["method"]


def setting(result: Mapping[str, Any]) -> dict[str, Any]:
    """The part of a run's configuration that its stages read, flat: `training.batch_size` and the like.

    A setting that is younger than the run has its default there.
    """
    config = result["config"]
    stages = config["method"]["stages"] if "method" in config else choice("method", result["method"])["stages"]
    read = dict.fromkeys(name for stage in stages for name in SECTIONS.get(stage, tuple(config)))
    sections = {name: with_defaults(name, config.get(name, section_defaults(name))) for name in read}
    return {
        key: value
        for key, value in flatten(sections)
        if key.split(".")[-1] not in NO_DIFFERENCE and not (key in REMOVED_SETTINGS and value == REMOVED_SETTINGS[key])
    }


def with_defaults(name: str, section: Any) -> Any:
    """A recorded section, what is absent filled in: from its dataclass, or from the YAML file of its choice."""
    if not isinstance(section, Mapping):
        return section
    defaults = section_defaults(name)
    return filled(section, choice(name, str(section.get("name"))) if defaults is None else defaults)


def filled(section: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    found = dict(defaults)
    for name, value in section.items():
        if isinstance(value, Mapping) and isinstance(default := defaults.get(name), Mapping):
            value = filled(value, default)
        found[name] = value
    return found


def flatten(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def differences(own: Mapping[str, Any], all_of_them: Iterable[Mapping[str, Any]]) -> str:
    """`KEY=VALUE` for each key in which some of the settings differ."""
    others = list(all_of_them)
    keys = dict.fromkeys(key for each in others for key in each)
    differing = [key for key in keys if any(each.get(key) != own.get(key) for each in others)]
    return " ".join(f"{key}={own.get(key)}" for key in differing)
