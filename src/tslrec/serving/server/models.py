"""The recommenders that a server answers with, by name; one is replaced by a newer one while requests run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from tslrec.serving.engine import Ids
from tslrec.serving.folder import ONNX, is_export
from tslrec.serving.histories import Histories
from tslrec.serving.loading import load
from tslrec.serving.recommender import LIST_LENGTH, Recommender
from tslrec.system.errors import UserError
from tslrec.system.optional_packages import installed


class UnknownModelError(UserError):
    """A request names a model that is not served."""


@dataclass(frozen=True, eq=False)
class Served:
    """A recommender that answers requests. A request keeps the one that it began with.

    Attributes:
        name: what requests call it.
        folder: where it was loaded from; absolute.
        engine: what was asked for: `auto`, `pytorch` or `onnxruntime`.
        recommender: answers.
        raw_ids: of each item; row 0 is padding.
        titles: of each item; row 0 is padding.
    """

    name: str
    folder: Path
    engine: str
    recommender: Recommender
    raw_ids: Sequence[str]
    titles: Sequence[str | None]

    def facts(self) -> dict[str, Any]:
        """What the model is, for `/models`."""
        facts = self.recommender.facts
        return {
            "name": self.name,
            **{key: facts.get(key) for key in ("method", "model", "data", "seed")},
            "metrics": facts.get("metrics") or {},
            "items": self.recommender.catalogue.num_items,
            "max_len": self.recommender.engine.max_len,
            "engine": self.recommender.engine.name,
        }


class Models:
    """The served models; the first one is the default.

    Args:
        served: with distinct names, at least one.
    """

    def __init__(self, served: Sequence[Served]) -> None:
        self.by_name = {each.name: each for each in served}
        self.default = served[0].name

    def find(self, name: str | None) -> Served:
        """The model of a name; None: the default one.

        Raises:
            UnknownModelError: if there is none.
        """
        found = self.by_name.get(self.default if name is None else name)
        if found is None:
            raise UnknownModelError(f"model: there is no {name!r}; this server has {', '.join(self.by_name)}")
        return found

    def swap(self, served: Served) -> None:
        """Puts a model in the place of that with its name; running requests keep the old one."""
        self.by_name[served.name] = served


def open_model(folder: Path, name: str, engine: str = "auto") -> Served:
    """Loads a recommender, and computes once with it so that the first request does not wait for that.

    Args:
        folder: an export or a finished run.
        name: what requests call it.
        engine: see `tslrec.serving.loading.load`; `auto` prefers onnxruntime where the folder has a graph for it, for
            it starts sooner.

    Raises:
        UserError: if it cannot be loaded.
    """
    folder = Path(os.path.abspath(folder))  # noqa: PTH100 - resolve() would follow a link that is moved later
    chosen = engine
    if engine == "auto" and is_export(folder) and (folder / ONNX).is_file() and installed("onnxruntime"):
        chosen = "onnxruntime"
    recommender = load(folder, engine=chosen)
    served = of_recommender(recommender, name, folder, engine)
    warm_up(recommender)
    return served


def of_recommender(recommender: Recommender, name: str, folder: Path, engine: str = "auto") -> Served:
    """A recommender with its raw ids and titles as lists, which answers read without polars."""
    catalogue = recommender.catalogue
    return Served(name, folder, engine, recommender, catalogue.raw_ids.to_list(), catalogue.items["title"].to_list())


def warm_up(recommender: Recommender) -> None:
    """Computes everything once that a recommender computes when it is first asked."""
    catalogue, longest = recommender.catalogue, recommender.engine.max_len
    items = np.resize(np.arange(1, catalogue.num_items + 1), longest)
    for length in (1, longest):
        recommender.best_items(histories_of([items[:length]]), min(10, catalogue.num_items))
    assert catalogue.by_raw_id is not None
    assert catalogue.most_popular is not None
    if LIST_LENGTH not in recommender.facts:
        assert recommender.unit_vectors is not None


def histories_of(items: Sequence[Ids | Sequence[int]]) -> Histories:
    """Histories from a list of item numbers per user."""
    counts = np.fromiter((len(each) for each in items), dtype=np.int64, count=len(items))
    flat = np.concatenate([np.empty(0, dtype=np.int64), *(np.asarray(each, dtype=np.int64) for each in items)])
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(counts)])
    return Histories(pl.Series("user", np.arange(len(items))), flat, offsets)


def names_of(folders: Sequence[Path]) -> list[str]:
    """A name for each folder: its own; a second one of the same name gets `-2`, and so on."""
    names: list[str] = []
    for folder in folders:
        name = base = Path(os.path.abspath(folder)).name or "model"  # noqa: PTH100 - see above
        number = 2
        while name in names:
            name, number = f"{base}-{number}", number + 1
        names.append(name)
    return names
