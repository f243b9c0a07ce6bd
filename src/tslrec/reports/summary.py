"""Summarises recorded runs: runs that differ only in their seed form one row, with mean and standard deviation."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tslrec.pipeline.choices import choice_place
from tslrec.pipeline.identity import CONTENT, identity, path_of
from tslrec.pipeline.result_names import Names, method_title, names_of

CONTENT_DIGITS = 8
"""Hex digits of a file's sha256 that a table shows."""


@dataclass(frozen=True)
class Row:
    """Runs of one method with one setting.

    Attributes:
        data: the data set's name.
        model: the backbone's name, followed by that of the source model if it is another.
        preset: the preset's name.
        method: the method's name.
        title: the method's name for people.
        differs: what tells this row from others with the same names, as `KEY=VALUE …`.
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


@dataclass
class Group:
    """Runs of one method that differ in nothing but their seed.

    Attributes:
        told_apart_by: what tells them from others (`tslrec.pipeline.identity`).
        path: the raw file of one of them.
        runs: the metrics of each run, by its seed.
    """

    told_apart_by: Mapping[str, Any]
    path: str | None
    runs: dict[int, Mapping[str, Any]] = field(default_factory=dict)


def summarise(results: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Rows by data set, backbone, preset and method; runs that differ in more than their seed never share a row.

    Args:
        results: entries of runs' `result.json`; of two that differ in nothing, the seed included, the later one counts.
    """
    groups: dict[Names, dict[str, Group]] = {}
    titles: dict[str, str] = {}
    for result in results:
        titles[result["method"]] = method_title(result["method"], result["config"])
        told_apart_by = identity(result)
        text = json.dumps(told_apart_by, sort_keys=True)
        group = groups.setdefault(names_of(result), {}).setdefault(text, Group(told_apart_by, path_of(result)))
        group.runs[int(result["seed"])] = result["metrics"]
    rows = []
    for names, members in sorted(groups.items(), key=lambda item: (item[0][:3], choice_place("method", item[0][3]))):
        for group in members.values():
            ordered = sorted(group.runs)
            metrics = tuple(group.runs[seed] for seed in ordered)
            data, model, preset, method = names
            differs = differences(group, list(members.values()))
            rows.append(Row(data, model, preset, method, titles[method], differs, tuple(ordered), metrics))
    return rows


def differences(own: Group, groups: Sequence[Group]) -> str:
    """`KEY=VALUE` for each key in which groups are not all the same, with the values of `own`.

    A raw file is named by its path, and by its content where groups read other content under the same path.
    """
    others = [group.told_apart_by for group in groups]
    keys = dict.fromkeys(key for each in others for key in each)
    differing = [key for key in keys if any(each.get(key) != own.told_apart_by.get(key) for each in others)]
    texts = [f"{key}={own.told_apart_by.get(key)}" for key in differing if key != CONTENT]
    if CONTENT in differing:
        content = own.told_apart_by[CONTENT]
        same_path = {each.told_apart_by[CONTENT] for each in groups if each.path == own.path}
        shown = f" (sha256 {str(content)[:CONTENT_DIGITS]})" if len(same_path) > 1 else ""
        texts.insert(0, f"data.path={own.path}{shown}")
    return " ".join(texts)
