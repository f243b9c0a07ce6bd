"""AdamW over all weights, and a rate that rises linearly and then falls linearly to zero."""

from __future__ import annotations

import torch
from torch import nn


def adamw(model: nn.Module, *, learning_rate: float, epsilon: float, weight_decay: float) -> torch.optim.AdamW:
    """AdamW with one weight decay for everything, norms and tables included, as in P5's and POD's public code.

    P5 has a rate of 1e-3, epsilon 1e-6 and decay 0.01 (RIVALS.md 3.11), POD 5e-4, torch's 1e-8 and 0.01 (4.6). P5's
    public code uses transformers' former AdamW, which adds epsilon before the correction of the second moment's bias.

    Args:
        model: the model.
        learning_rate: the peak.
        epsilon: added to the root of the second moment.
        weight_decay: share of the rate by which weights shrink in each step.
    """
    parameters = list(model.parameters())
    fused = all(parameter.is_cuda for parameter in parameters) or None
    return torch.optim.AdamW(parameters, lr=learning_rate, eps=epsilon, weight_decay=weight_decay, fused=fused)


def linear_rate_at(step: int, steps: int, warmup: float) -> float:
    """The learning rate at a step as a share of its peak; zero in the first step, as in transformers' schedule.

    Args:
        step: optimizer steps that are done.
        steps: optimizer steps of the whole training.
        warmup: share of `steps` during which the rate rises; 0: none.
    """
    rising = int(warmup * steps)
    if step < rising:
        return step / max(1, rising)
    return max(0.0, (steps - step) / max(1, steps - rising))
