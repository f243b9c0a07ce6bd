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
from tslrec.stages.members import Member
from tslrec.stages.restored import ListGenerator, Restored, restore
from tslrec.system.errors import UserError
from tslrec.system.manifests import find_result, read_manifest, verify
from tslrec.system.run_files import RESULT_FILE, result_paths


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
        members: the recommenders of other runs that the method's stages read.
    """

    folder: Path
    result: Mapping[str, Any]
    config: Config
    stages: Mapping[str, Path]
    data_folder: Path
    titles_folder: Path | None = None
    members: tuple[Member, ...] = ()

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
        for each in (folder, *(member.folder for member in self.members)):
            verify(each, read_manifest(each))
        inputs = inputs_of(self.data_folder, self.stages, self.titles_folder)
        restored = restore(stage, Sources(self.config, interactions, inputs, self.members), folder)
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
            **({"members": [member.words for member in self.members]} if self.members else {}),
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
    path = folder / RESULT_FILE
    try:
        results = {each["method"]: each for each in json.loads(path.read_text(encoding="utf-8"))["results"]}
        chosen = list(results)[-1] if method is None else method
        if chosen not in results:
            raise UserError(f"{path}: has no method {chosen}; it has {', '.join(results)}")
        result = results[chosen]
        config, keys, titles_key = recorded(result)
        of_members = [(str(each["words"]), *recorded(each)) for each in result.get("members", ())]
    except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
        raise UserError(f"{path}: not the result of a run ({error!r}); name a folder in artifacts/runs") from error
    if not keys:
        raise UserError(f"{path}: the method {chosen} trains nothing; name another run")
    stages = stage_folders(folder, keys)
    data_key = str(read_manifest(list(stages.values())[-1])["inputs"]["data"])
    data = stage_folders(folder, {"data": data_key})["data"]
    members = tuple(
        member_of(words, member, stage_folders(folder, own_keys), data, titles_of(folder, own_titles))
        for words, member, own_keys, own_titles in of_members
    )
    return FinishedRun(folder, result, config, stages, data, titles_of(folder, titles_key), members)


def recorded(result: Mapping[str, Any]) -> tuple[Config, dict[str, str], str | None]:
    """The configuration of a recorded result, the keys of its stages' results, and that of the titles that it read.

    Args:
        result: an entry of a `result.json`, or of the members of one.
    """
    config = from_recorded(result["config"])
    keys = {name: str(result["stages"][name]["key"]) for name in config.method.stages}
    return config, keys, result["titles"]["key"] if "titles" in result else None


def stage_folders(run: Path, keys: Mapping[str, str]) -> dict[str, Path]:
    """The folders of results, by stage.

    Args:
        run: the folder of the run.
        keys: of the results, by stage.

    Raises:
        UserError: if one is missing.
    """
    root = run.resolve().parent.parent
    return {name: find_result(root, name, key, run)[0] for name, key in keys.items()}


def titles_of(run: Path, key: str | None) -> Path | None:
    """The folder of the titles with a key; None without one.

    Raises:
        UserError: if it is missing.
    """
    return None if key is None else stage_folders(run, {"titles": key})["titles"]


def inputs_of(data: Path, stages: Mapping[str, Path], titles: Path | None) -> dict[str, Path]:
    """What the last stage of a method may read, by name, as `StageContext.inputs` has it."""
    return {"data": data, **stages, **({} if titles is None else {"titles": titles})}


def member_of(words: str, config: Config, stages: Mapping[str, Path], data: Path, titles: Path | None) -> Member:
    """A member of a finished run.

    Args:
        words: what its command line has otherwise than the run's.
        config: its configuration.
        stages: the folders of its stages' results.
        data: that of the data set.
        titles: that of the titles which it read; None if it read none.
    """
    last = config.method.stages[-1]
    return Member(words, config, last, stages[last], inputs_of(data, stages, titles))


def single_run(folder: Path) -> Path:
    """The run's folder itself, or the only run of an artifacts folder.

    Raises:
        UserError: if there is none, or there are several.
    """
    if (folder / RESULT_FILE).is_file():
        return folder
    runs = sorted(path.parent for path in result_paths(folder))
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
