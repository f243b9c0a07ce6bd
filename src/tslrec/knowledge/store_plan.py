"""What an unfinished knowledge store is made from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tslrec.knowledge.origin import Origin
from tslrec.knowledge.shards import Plan
from tslrec.llm.item_scaling import Scaling


@dataclass(frozen=True, kw_only=True)
class StorePlan(Plan):
    """The plan of a store.

    Attributes:
        origin: what determines the rows.
        scaling: standardises the item embeddings.
    """

    origin: Origin
    scaling: Scaling
    kind = "store"

    def made_from(self) -> dict[str, Any]:
        return {"origin": self.origin.as_json(), "scaling": self.scaling.as_json()}

    @staticmethod
    def read_made_from(value: Mapping[str, Any]) -> dict[str, Any]:
        return {"origin": Origin.from_json(value["origin"]), "scaling": Scaling.from_json(value["scaling"])}

    def require_match(self, wanted: StorePlan, path: Path) -> None:
        """See `Plan`; the scaling follows from the origin."""
        self.origin.require_match(wanted.origin, path)
