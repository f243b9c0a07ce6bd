"""An evaluation computes in fp32 whatever precision trains, as the recommender does that is made of the weights."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

from support.ddp_scenarios import MAX_LEN, NUM_ITEMS, SIZE, data_module, market
from tslrec.models.backbones.sasrec import SASRec
from tslrec.models.item_embedding import IdEmbedding
from tslrec.settings.trainer import TrainerConfig
from tslrec.system.meter import Meter
from tslrec.training.checkpoints import Checkpoints
from tslrec.training.next_item import NextItemModule
from tslrec.training.trainer import StageTrainers


class Recorded(NextItemModule):
    """Keeps what it scored, and with which weights."""

    found: list[tuple[torch.Tensor, torch.Tensor]]

    def predict_users(self, batch: Any) -> Any:
        scored = super().predict_users(batch)
        if scored is not None and not self.trainer.validating:
            backbone = copy.deepcopy(self.backbone).float()
            with torch.autocast("cpu", enabled=False):
                table_ID = backbone.item_embedding.table()
                expected_BD = backbone(batch.items_BL, batch.lengths_B, batch.users_B, table_ID)
            self.found.append((scored.user_BD, expected_BD))
        return scored


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_users_are_scored_in_fp32(precision: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    backbone = SASRec(IdEmbedding(NUM_ITEMS, SIZE), 100, MAX_LEN)
    module = Recorded(backbone, learning_rate=1e-2, weight_decay=0.0)
    module.found = []
    trainer = StageTrainers(
        TrainerConfig("cpu", precision=precision), "test", tmp_path, checkpoints=Checkpoints(tmp_path), meter=Meter()
    )(max_epochs=1)
    data = data_module(market(31))
    trainer.fit(module, data)
    kept = torch.bfloat16 if precision == "bf16-true" else torch.float32
    assert next(module.parameters()).dtype == kept
    trainer.test(module, data, verbose=False)
    assert module.found
    for scored, expected in module.found:
        assert scored.dtype == torch.float32
        assert torch.allclose(scored, expected.float(), rtol=1e-5, atol=1e-6)
    assert not module.ranking
    assert not any(name.startswith("ranking") for name in module.state_dict())
