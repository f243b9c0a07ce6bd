"""`gpu.json`: what every step has measured, and on which card."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tslrec.system.errors import UserError
from tslrec.system.files import write_json

MEASURED, FAILED, OUT_OF_TIME, NO_TIME_LEFT, NOT_MEASURED = (
    "measured",
    "failed",
    "out of time",
    "no time left",
    "not measured",
)
"""How a step ends. The last: something that it needs is not on the machine."""


class Record:
    """The file, written after every figure.

    Args:
        path: the file.
        fresh: whether to forget what is in it.
    """

    def __init__(self, path: Path, *, fresh: bool) -> None:
        self.path = path
        self.content: dict[str, Any] = {"steps": {}}
        if path.is_file() and not fresh:
            self.content = json.loads(path.read_text(encoding="utf-8"))
        path.parent.mkdir(parents=True, exist_ok=True)

    def describe(self, machine: dict[str, Any]) -> None:
        """Notes where this run happens.

        Raises:
            UserError: if the file holds steps of another card.
        """
        earlier = self.content.get("machine")
        if self.content["steps"] and earlier is not None and earlier["card"] != machine["card"]:
            raise UserError(
                f"{self.path}: was measured on {earlier['card']}, this is {machine['card']}; add --fresh, or --out FILE"
            )
        self.content["machine"] = machine
        self.write()

    def done(self, part: str, step: str) -> bool:
        """Whether a step is measured."""
        found = self.content["steps"].get(f"{part}/{step}")
        return found is not None and found["ended"] == MEASURED

    def put(self, part: str, step: str, facts: dict[str, Any]) -> None:
        """Replaces what is known of a step."""
        self.content["steps"][f"{part}/{step}"] = facts
        self.write()

    def bad(self, parts: Sequence[str]) -> list[str]:
        """The steps of some parts that failed or were out of time."""
        return [
            name
            for name, facts in self.content["steps"].items()
            if facts["ended"] in (FAILED, OUT_OF_TIME) and name.partition("/")[0] in parts
        ]

    def write(self) -> None:
        write_json(self.path, self.content)


def machine(*, rehearse: bool) -> dict[str, Any]:
    """The card, its driver, the processor, and the versions of packages."""
    import torch

    from tslrec.system.meter import Meter

    facts = Meter().facts()
    found: dict[str, Any] = {"card": "none: a rehearsal", "driver": None, "cuda": torch.version.cuda}
    if not rehearse:
        asked = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(asked, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
        found |= {"card": torch.cuda.get_device_name(), "driver": driver}
        found["memory_gib"] = round(torch.cuda.get_device_properties(0).total_memory / 2**30, 1)
    return {**found, **facts["machine"], "created": facts["created"], "packages": facts["packages"]}
