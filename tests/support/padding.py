"""Sequences as rows of equal length."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


def padded(rows: Sequence[np.ndarray]) -> Tensor:
    """int64, padded with 0 on the right."""
    return pad_sequence([torch.from_numpy(row.astype(np.int64)) for row in rows], batch_first=True)
