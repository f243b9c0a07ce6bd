"""The titles of a run's items: an artifact beside the data's, made only if a stage of the method reads titles."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tslrec.config import Config
from tslrec.pipeline.artifacts import Artifact, ArtifactStore, Recipe
from tslrec.pipeline.recipes import titles_recipe
from tslrec.settings.data import DataConfig
from tslrec.stages.method_stages import reads_titles, stages_of
from tslrec.system.errors import UserError
from tslrec.system.meter import Meter

if TYPE_CHECKING:
    from tslrec.data.interactions import Interactions

log = logging.getLogger(__name__)


def is_generated(data: DataConfig) -> bool:
    """Whether a data set is generated instead of read from a file."""
    return data.path is None and data.download.url is None


def check_titles(config: Config) -> None:
    """Checks that there is a file of titles if the configured method reads titles; its content is not looked at.

    Generated data may have titles of their own, which `ingest_titles` looks for.

    Raises:
        UserError: if `data.titles` names no file and the data are read from a file, or there is no such file.
    """
    if reads_titles(config) and not (config.data.titles is None and is_generated(config.data)):
        titles_file(config)


def reader_of(config: Config) -> str:
    """What reads titles, for messages: the method, or a setting that a person could change."""
    if any("titles" in stage.reads for stage in stages_of(config)):
        return f"method={config.method.name}"
    return f"sft.item_input={config.sft.item_input}"


def titles_file(config: Config) -> Path:
    """The file of titles of a method that reads them.

    Raises:
        UserError: if `data.titles` names no file, or there is no such file.
    """
    from tslrec.data.titles_file import titles_path

    path, reader = titles_path(config.data, Path(config.cache)), reader_of(config)
    if path is None:
        raise UserError(
            f"data.titles=null: {reader} reads the items' titles; give data.titles=FILE, CSV or Parquet with "
            "the columns item_id and title"
        )
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "there is no such file"
        raise UserError(
            f"{path}: {what}, and {reader} reads the items' titles; put CSV with the columns item_id and title "
            "there, or give data.titles=FILE"
        )
    return path


def ingest_titles(config: Config, store: ArtifactStore, data: Artifact, interactions: Interactions) -> Artifact:
    """Reads the titles of the items, or reuses their artifact if the same ones were read for the same data before.

    They are those of the file that `data.titles` names; where it names none, those that the data have of their own.

    Args:
        config: the run's, one of whose methods reads titles.
        store: finds and publishes the artifact.
        data: the data set's artifact.
        interactions: the data set.

    Raises:
        UserError: if there are no titles, or the file is missing, cannot be read, or is of other items.
    """
    from tslrec.data.item_titles import write_item_titles, write_own_titles
    from tslrec.system.hashing import digest_texts, file_sha256

    own, raw_ids, meter = interactions.titles, interactions.ids.items, Meter()
    path = titles_file(config) if config.data.titles is not None or own is None else None

    def compute(folder: Path) -> dict[str, Any]:
        if path is not None:
            return asdict(write_item_titles(path, raw_ids, config.data.name, folder))
        assert own is not None
        return asdict(write_own_titles(own, raw_ids, folder))

    if path is not None:
        sha256, source = file_sha256(path), str(path)
    else:
        assert own is not None
        sha256, source = digest_texts(own), f"of data={config.data.name} itself"
    artifact = store.produce(titles_recipe(Recipe.of(data.manifest), sha256), compute, meter.facts)
    log.info(line_of(source, artifact.metrics))
    return artifact


def line_of(source: str, counts: Mapping[str, Any]) -> str:
    """The counts of a titles' artifact as one line for the log.

    Args:
        source: where the titles come from.
        counts: the artifact's metrics.
    """
    titled = counts["items"] - counts["missing"]
    neutral = f"; {counts['missing']:,} without one go by `item RAWID`" if counts["missing"] else ""
    odd = {
        "ids stand in several rows": counts["repeated_ids"],
        "titles stand for several items": counts["shared_titles"],
        "ids are of no item": counts["unknown_ids"],
    }
    others = "".join(f"; {count:,} {what}" for what, count in odd.items() if count)
    return f"Titles: {titled:,} of {counts['items']:,} items have one, {source}{neutral}{others}"
