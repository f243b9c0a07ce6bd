"""Adds the ONNX graph, and one in int8, to an exported folder; each is checked before the folder appears."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from safetensors.torch import save_file

from tslrec.data.interactions import Interactions
from tslrec.serving.folder import ENCODER, ITEM_TABLE, ONNX, ONNX_INT8, OUTPUT_TABLE
from tslrec.serving.onnx.check import Agreement, compare, require_agreement
from tslrec.serving.onnx.encoder import encoder_graph
from tslrec.serving.onnx.engine import OnnxEngine
from tslrec.serving.onnx.graph import recommender_graph
from tslrec.serving.onnx.head import OPSET
from tslrec.serving.onnx.loss import CUTOFF, accuracy
from tslrec.serving.onnx.quantise import int8_graph
from tslrec.serving.onnx.samples import histories_of, spread
from tslrec.serving.torch_engine import TorchEngine
from tslrec.stages.restored import Restored

CHECKED_USERS = 2_000
"""Users whose lists are compared with PyTorch's."""
MEASURED_USERS = 100_000
"""Test users, at most, over which the loss of int8 is measured."""


class OnnxExtra:
    """Adds `recommender.onnx` to a folder in the making; an `Extra` of `tslrec.serving.export`.

    Args:
        interactions: the run's data set, whose histories the graph is checked with.
        int8: whether to add `recommender-int8.onnx` too.
    """

    def __init__(self, interactions: Interactions, *, int8: bool) -> None:
        self.interactions = interactions
        self.int8 = int8

    def __call__(self, folder: Path, facts: dict[str, Any], restored: Restored) -> None:
        """Writes the graphs, and what was measured into `facts`.

        Raises:
            UserError: if the backbone cannot be translated, or the graph's lists are not PyTorch's.
        """
        assert restored.backbone is not None
        encoder, padded = encoder_graph(restored.backbone)
        table_IE = restored.output_IE.float().numpy()
        onnx.save(recommender_graph(encoder, table_IE), folder / ONNX)
        engine = OnnxEngine(folder / ONNX, table_IE, restored.max_len)
        facts["onnx"] = {
            "opset": OPSET,
            "padded_to_max_len": padded,
            "table": table_file(restored, folder),
            "checked": self.check(TorchEngine(restored), engine),
        }
        if self.int8:
            onnx.save(int8_graph(encoder, table_IE), folder / ONNX_INT8)
            int8_engine = OnnxEngine(folder / ONNX_INT8, table_IE, restored.max_len, name="onnxruntime-int8")
            facts["onnx"]["int8"] = self.measure(engine, int8_engine)

    def check(self, reference: TorchEngine, engine: OnnxEngine) -> dict[str, Any]:
        """Compares the graph's lists with PyTorch's, with and without seen items.

        Raises:
            UserError: if a list differs by more than near ties.
        """
        users = spread(np.arange(self.interactions.num_users), CHECKED_USERS)
        histories = histories_of(self.interactions, users, without_test=False)
        length = min(CUTOFF, engine.num_items)
        agreement = Agreement()
        for filter_seen in (True, False):
            agreement.add(compare(reference, engine, histories, length, filter_seen=filter_seen))
        require_agreement(agreement, histories)
        return {
            "users": len(users),
            "lists": agreement.users,
            "same_top_10": agreement.share,
            "near_ties": agreement.near_ties,
            "largest_difference": agreement.largest,
            "onnxruntime": version("onnxruntime"),
            "torch": version("torch"),
        }

    def measure(self, engine: OnnxEngine, int8_engine: OnnxEngine) -> dict[str, Any]:
        """What int8 costs in HR@10 and NDCG@10; positive numbers are losses."""
        users = spread(self.interactions.evaluated_users, MEASURED_USERS)
        if not len(users):
            return {"users": 0}
        full, small = (accuracy(each, self.interactions, users) for each in (engine, int8_engine))
        return {
            "users": len(users),
            "float32": full,
            "int8": small,
            "loss": {name: full[name] - small[name] for name in full},
        }


def table_file(restored: Restored, folder: Path) -> dict[str, str]:
    """The file and the array that hold the table which scores the items; written if no other file holds it.

    Args:
        restored: the recommender.
        folder: in the making, with its weights.
    """
    assert restored.backbone is not None
    if torch.equal(restored.output_IE, restored.backbone.item_embedding.table()):
        return {"file": ITEM_TABLE, "array": "item_table"}
    for name, value in restored.backbone.state_dict().items():
        if value.shape == restored.output_IE.shape and torch.equal(value, restored.output_IE):
            return {"file": ENCODER, "array": name}
    save_file({"output_table": restored.output_IE.contiguous()}, folder / OUTPUT_TABLE)
    return {"file": OUTPUT_TABLE, "array": "output_table"}
