"""What may be set of a data set."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from omegaconf import MISSING

from tslrec.settings.bounds import bounded
from tslrec.settings.choices import LAST_PLACE


@dataclass
class DownloadConfig:
    """A public file.

    Attributes:
        url: where it is; null for data that are not downloaded.
        sha256: hex digest that it must have.
    """

    url: str | None = None
    sha256: str | None = None


@dataclass
class DataConfig:
    """One data set.

    Attributes:
        name: its name in file names and keys.
        title: its name in tables.
        reader: `_target_` of a function of `tslrec.data.formats` and its options.
        path: the raw file; null looks into the cache and downloads.
        download: the public file, pinned by its sha256.
        min_user_interactions: k-core filter: users with fewer interactions are dropped, repeated together with
            `min_item_interactions` until both bounds hold.
        min_item_interactions: the same for items.
        place: its place in tables, lower first.
        titles: a CSV or Parquet file with the columns `item_id` and `title`, for methods that read titles, for
            `tslrec recommend` and `export`; it influences no other training. `{folder}` in it is the raw file's folder.
    """

    name: str = MISSING
    title: str = MISSING
    reader: dict[str, Any] = MISSING
    path: str | None = None
    download: DownloadConfig = field(default_factory=DownloadConfig)
    min_user_interactions: int = bounded(0, least=0)
    min_item_interactions: int = bounded(0, least=0)
    place: int = LAST_PLACE
    titles: str | None = None
