"""The rate's rise and fall, and AdamW on every weight."""

from __future__ import annotations

import pytest
import torch

from tslrec.llm.encoder_decoder.optimizing import adamw, linear_rate_at


@pytest.mark.parametrize(("steps", "warmup"), [(100, 0.05), (7, 0.5), (10, 0.0), (1, 0.05), (3, 1.0)])
def test_the_rate_is_that_of_transformers(steps: int, warmup: float) -> None:
    from transformers import get_linear_schedule_with_warmup

    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1.0)
    schedule = get_linear_schedule_with_warmup(optimizer, int(warmup * steps), steps)
    for step in range(steps + 1):
        assert linear_rate_at(step, steps, warmup) == pytest.approx(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()


def test_all_weights_decay_alike() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.LayerNorm(3))
    optimizer = adamw(model, learning_rate=1e-3, epsilon=1e-6, weight_decay=0.01)
    (group,) = optimizer.param_groups
    assert len(group["params"]) == len(list(model.parameters()))
    assert (group["lr"], group["eps"], group["weight_decay"]) == (1e-3, 1e-6, 0.01)
