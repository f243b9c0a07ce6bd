"""Loads the recommender of a finished run from its artifacts, without the code that trains."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tslrec.config import Config, from_recorded
from tslrec.data import parquet
from tslrec.data.interactions import Interactions
from tslrec.data.item_titles import read_known_titles
from tslrec.data.titles_file import first_titles, optional_titles_path, read_titles_file
from tslrec.serving.catalogue import Catalogue
from tslrec.serving.titles import with_titles
from tslrec.stages.fusion_inputs import Sources
from tslrec.stages.restored import ListGenerator, Restored, restore
from tslrec.system.errors import UserError
from tslrec.system.manifests import find_result, read_manifest, verify

RESULT = "result.json"
"""File name of a run's results, in its folder."""


class ServesNoHistoriesError(UserError):
    """A recommender with a vector per user, which recommends to nobody but the users that it was trained on."""


@dataclass(frozen=True)
class FinishedRun:
    """One method of a finished run, and where its results are.

    Attributes:
        folder: of the run: `artifacts/runs/NAME`.
        result: the method's entry in `result.json`.
        config: the run's configuration.
        stages: the folder of each stage's artifact, by stage, in order.
        data_folder: of the ingested data set.
        titles_folder: of the items' titles; None of a method that reads none.
    """

    folder: Path
    result: Mapping[str, Any]
    config: Config
    stages: Mapping[str, Path]
    data_folder: Path
    titles_folder: Path | None = None

    @property
    def last(self) -> tuple[str, Path]:
        """Name and folder of the stage that made the recommender."""
        return list(self.stages.items())[-1]

    def interactions(self) -> Interactions:
        """The run's data set."""
        return parquet.load(self.data_folder, self.config.data.name)

    def restore(self, interactions: Interactions) -> Restored | ListGenerator:
        """The trained recommender.

        Args:
            interactions: the run's data set.

        Raises:
            ServesNoHistoriesError: if the backbone has a vector per user.
            UserError: if an artifact is damaged, or the method gives no recommender that can be used.
        """
        stage, folder = self.last
        verify(folder, read_manifest(folder))
        inputs = {"data": self.data_folder, **self.stages}
        if self.titles_folder is not None:
            inputs["titles"] = self.titles_folder
        restored = restore(stage, Sources(self.config, interactions, inputs), folder)
        backbone = None if isinstance(restored, ListGenerator) else restored.backbone
        if backbone is not None and backbone.user_embedding is not None:
            raise ServesNoHistoriesError(
                f"{self.folder}: model={self.config.model['name']} has a vector per user, so it serves no other "
                "histories; train another model to recommend with"
            )
        return restored

    def facts(self) -> dict[str, Any]:
        """What the recommender is: names, provenance and metrics."""
        result, manifests = self.result, {name: read_manifest(folder) for name, folder in self.stages.items()}
        data = read_manifest(self.data_folder)
        return {
            "method": result["method"],
            "model": result["model"],
            "source_model": result["source_model"],
            "data": result["data"],
            "preset": result["preset"],
            "seed": result["seed"],
            "llm": result["llm"],
            "run": self.folder.resolve().name,
            "keys": {name: manifest["key"] for name, manifest in manifests.items()},
            "data_key": data["key"],
            "raw_data_sha256": data.get("config", {}).get("sha256"),
            "versions": manifests[self.last[0]].get("versions", {}),
            "trained": manifests[self.last[0]].get("created"),
            "metrics": {name: value for name, value in result["metrics"].items() if name.startswith("test/")},
        }


def open_run(folder: Path, method: str | None = None) -> FinishedRun:
    """Reads what a run left.

    Args:
        folder: of the run, or an artifacts folder that holds exactly one run.
        method: one of the compared methods; None: the run's own.

    Raises:
        UserError: if there is no such run or method, or an artifact is missing.
    """
    folder = single_run(folder)
    path = folder / RESULT
    try:
        results = {each["method"]: each for each in json.loads(path.read_text(encoding="utf-8"))["results"]}
        chosen = list(results)[-1] if method is None else method
        if chosen not in results:
            raise UserError(f"{path}: has no method {chosen}; it has {', '.join(results)}")
        result = results[chosen]
        config = from_recorded(result["config"])
        keys = {name: result["stages"][name]["key"] for name in config.method.stages}
        titles_key = result["titles"]["key"] if "titles" in result else None
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(f"{path}: not the result of a run ({error!r}); name a folder in artifacts/runs") from error
    if not keys:
        raise UserError(f"{path}: the method {chosen} trains nothing; name another run")
    root = folder.resolve().parent.parent
    stages = {name: find_result(root, name, key, folder)[0] for name, key in keys.items()}
    data_key = str(read_manifest(list(stages.values())[-1])["inputs"]["data"])
    titles = None if titles_key is None else find_result(root, "titles", titles_key, folder)[0]
    return FinishedRun(folder, result, config, stages, find_result(root, "data", data_key, folder)[0], titles)


def single_run(folder: Path) -> Path:
    """The run's folder itself, or the only run of an artifacts folder.

    Raises:
        UserError: if there is none, or there are several.
    """
    if (folder / RESULT).is_file():
        return folder
    runs = sorted(path.parent for path in (folder / "runs").glob(f"*/{RESULT}"))
    if len(runs) == 1:
        return runs[0]
    if runs:
        raise UserError(f"{folder}: has {len(runs)} runs; name one of them, {runs[0]} for one")
    raise UserError(f"{folder}: no recommender; name a finished run (artifacts/runs/NAME) or a folder of tslrec export")


def catalogue_of(run: FinishedRun, interactions: Interactions, titles: Path | None) -> Catalogue:
    """The items of a run's data set.

    Args:
        run: the run.
        interactions: its data set.
        titles: file of titles; None: those that the method read, else those of the file that the run's configuration
            names, else those of generated data.

    Raises:
        UserError: if the titles cannot be read.
    """
    counts_I = np.bincount(interactions.items, minlength=interactions.num_items + 1).astype(np.int64)
    made = interactions.titles or [None] * (interactions.num_items + 1)
    items = pl.DataFrame(
        {"raw_id": interactions.ids.items, "title": pl.Series(made, dtype=pl.String), "count": counts_I}
    )
    if titles is not None:
        rows = read_titles_file(titles, "--titles FILE")
    elif run.titles_folder is not None:
        verify(run.titles_folder, read_manifest(run.titles_folder))
        rows = items.select("raw_id", pl.Series("title", read_known_titles(run.titles_folder), dtype=pl.String))
    elif (path := optional_titles_path(run.config.data, Path(run.config.cache))) is not None:
        rows = read_titles_file(path)
    else:
        return Catalogue(items)
    return Catalogue(with_titles(items, first_titles(rows)))
