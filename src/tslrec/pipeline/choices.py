"""The YAML files of `configs/`: what a choice of a group says of itself, such as its title; free of heavy imports."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from tslrec.settings.choices import LAST_PLACE
from tslrec.system.errors import UserError

CONFIG_NAME = "train"
"""Name of the top file, `configs/train.yaml`."""


def config_folder() -> Path:
    """The folder `configs` of the checkout that this code is in, else the one in the working directory.

    Raises:
        UserError: if neither exists, as where only the package was installed.
    """
    places = candidate_folders()
    for place in places:
        if (place / f"{CONFIG_NAME}.yaml").is_file():
            return place
    raise UserError(
        f"{' and '.join(str(place) for place in places)}: no {CONFIG_NAME}.yaml there; run this in the project's "
        "checkout, or install it from there with `pip install --editable '.[train]'`"
    )


def candidate_folders() -> list[Path]:
    """Where `configs` may be, the preferred folder first."""
    return [Path(__file__).resolve().parents[3] / "configs", Path.cwd() / "configs"]


@cache
def choice(group: str, name: str) -> Mapping[str, Any]:
    """The content of `configs/GROUP/NAME.yaml`; empty if there is no such file, as for a choice of `--config-dir`."""
    import yaml

    for folder in candidate_folders():
        path = folder / group / f"{name}.yaml"
        if path.is_file():
            content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
            own = content.get(group, content)
            return dict(own) if isinstance(own, Mapping) else {}
    return {}


def choice_title(group: str, name: str) -> str:
    """The name of a data set, a model or a method in tables: its file's `title`, else its name."""
    stated = choice(group, name).get("title")
    return name if stated is None or "${" in str(stated) else str(stated)


def choice_place(group: str, name: str) -> tuple[int, str]:
    """Sort key of a choice in tables: its file's `place`, then its name."""
    return int(choice(group, name).get("place", LAST_PLACE)), name


def placed(group: str) -> list[str]:
    """The names of a group's choices whose files state a place, in order."""
    names = {path.stem for folder in candidate_folders() for path in (folder / group).glob("*.yaml")}
    ordered = sorted(choice_place(group, name) for name in names)
    return [name for place, name in ordered if place < LAST_PLACE]
