"""The teacher of these tests."""

from __future__ import annotations

import pytest

from support.recommenders import random_backbone
from support.taught import ITEMS, MAX_LEN
from tslrec.stages import soft_targets as stage
from tslrec.stages.restored import Restored, of_backbone


@pytest.fixture
def teacher(monkeypatch: pytest.MonkeyPatch) -> Restored:
    """A small backbone in the place of the ensemble."""
    backbone = random_backbone("sasrec", num_items=ITEMS, max_len=MAX_LEN)
    found = of_backbone(backbone, backbone.item_embedding.table().detach().clone())
    monkeypatch.setattr(stage, "restore", lambda name, sources, folder: found)
    return found
