"""Summarises recorded runs: runs that differ only in their seed form one row, with mean and standard deviation."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tslrec.pipeline.choices import choice_place
from tslrec.pipeline.results import Names, method_title, names_of, setting


@dataclass(frozen=True)
class Row:
    """Runs of one method with one setting.

    Attributes:
        data: the data set's name.
        model: the backbone's name, followed by that of the source model if it is another.
        preset: the preset's name.
        method: the method's name.
        title: the method's name for people.
        differs: the settings that tell this row from others with the same names, as `KEY=VALUE …`.
        seeds: the seeds of the runs, rising.
        metrics: the metrics of each run, in the order of the seeds.
    """

    data: str
    model: str
    preset: str
    method: str
    title: str
    differs: str
    seeds: tuple[int, ...]
    metrics: tuple[Mapping[str, Any], ...]

    @property
    def names(self) -> Names:
        """Data set, backbone, preset, method."""
        return self.data, self.model, self.preset, self.method

    def values(self, metric: str) -> list[float]:
        """A metric of each seed, by its full name such as `test/masked/HR@10`."""
        return [float(each[metric]) for each in self.metrics]

    def mean(self, metric: str) -> float:
        """The mean of a metric over the seeds."""
        return statistics.fmean(self.values(metric))

    def deviation(self, metric: str) -> float | None:
        """The standard deviation (n − 1) of a metric over the seeds; None for a single seed."""
        return statistics.stdev(self.values(metric)) if len(self.seeds) > 1 else None


def summarise(results: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Rows by data set, backbone, preset and method.

    Args:
        results: entries of runs' `result.json`; of two with the same setting and seed the later one counts.
    """
    groups: dict[Names, dict[str, dict[int, Mapping[str, Any]]]] = {}
    titles: dict[str, str] = {}
    for result in results:
        titles[result["method"]] = method_title(result["method"], result["config"])
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
            rows.append(Row(data, model, preset, method, titles[method], differs, tuple(ordered), metrics))
    return rows


def differences(own: Mapping[str, Any], all_of_them: Iterable[Mapping[str, Any]]) -> str:
    """`KEY=VALUE` for each key in which the settings are not all the same, with the values of `own`."""
    others = list(all_of_them)
    keys = dict.fromkeys(key for each in others for key in each)
    differing = [key for key in keys if any(each.get(key) != own.get(key) for each in others)]
    return " ".join(f"{key}={own.get(key)}" for key in differing)
