"""The backbone as an ONNX graph from padded item ids to user vectors, made by torch's exporter.

Shapes: B users, L positions, I items (row 0 of a table is padding), D hidden size, E size of a user vector.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import numpy as np
import onnx
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tslrec.models.backbones.base import Backbone
from tslrec.serving.engine import Floats, Ids
from tslrec.serving.onnx.head import IR_VERSION, ITEMS, OPSET, VECTORS
from tslrec.serving.onnx.recurrent import with_onnx_grus
from tslrec.serving.onnx.session import open_session
from tslrec.system.errors import UserError

TOLERANCE = 1e-4
"""Largest difference of a user vector's number between graph and backbone, as a share of the largest number."""


class Encoder(nn.Module):
    """A backbone that reads lengths from the padding.

    Args:
        backbone: in evaluation mode, around a finished item table.
        extend: whether each input is padded to `max_len`, for a backbone that computes another number of operations for
            each length.
    """

    table_ID: Tensor

    def __init__(self, backbone: Backbone, *, extend: bool) -> None:
        super().__init__()
        self.backbone = backbone
        self.extend = extend
        self.register_buffer("table_ID", backbone.item_embedding.table().detach())

    def forward(self, items: Tensor) -> Tensor:
        """User vectors `[B, E]` of item ids `[B, L]`."""
        lengths_B = (items != 0).sum(dim=1)
        if self.extend:
            items = F.pad(items, (0, self.backbone.max_len - items.shape[1]))
        user_BE: Tensor = self.backbone(items, lengths_B, torch.zeros_like(lengths_B), self.table_ID)
        return user_BE


def encoder_graph(backbone: Backbone) -> tuple[onnx.ModelProto, bool]:
    """Exports a backbone; the graph takes any number of users, and any length up to `max_len`.

    A backbone whose Python code depends on the length gives a graph that is right for one length only. So the graph is
    tried with several lengths; if it is wrong for one, the input is padded to `max_len` inside of the graph instead.

    Returns:
        The graph, and whether it pads its input to `max_len`.

    Raises:
        UserError: if neither graph gives the backbone's user vectors.
    """
    found = ""
    for extend in (False, True):
        encoder = Encoder(backbone, extend=extend).eval()
        try:
            graph = exported(Encoder(with_onnx_grus(backbone), extend=extend).eval())
        except torch.onnx.OnnxExporterError as error:
            found = next(line for line in str(error.__cause__ or error).splitlines() if line.strip())
            continue
        found = difference(encoder, graph)
        if not found:
            return graph, extend
    raise UserError(f"{type(backbone).__name__}: no ONNX graph gives its user vectors ({found}); export without --onnx")


def exported(encoder: Encoder) -> onnx.ModelProto:
    """Runs torch's exporter.

    Raises:
        OnnxExporterError: if the backbone cannot be translated.
    """
    length = min(encoder.backbone.max_len, max(2, encoder.backbone.max_len - 1))
    items_BL = torch.from_numpy(probe(encoder.backbone, 3, length))
    dynamic = torch.export.Dim.DYNAMIC
    with quiet():
        program = torch.onnx.export(
            encoder,
            (items_BL,),
            dynamo=True,
            verbose=False,
            opset_version=OPSET,
            input_names=[ITEMS],
            output_names=[VECTORS],
            # A length of 1 would be taken for a constant.
            dynamic_shapes={"items": {0: dynamic, 1: dynamic} if length > 1 else {0: dynamic}},
        )
    assert program is not None
    graph = program.model_proto
    versions = {each.domain: each.version for each in graph.opset_import}
    assert versions.get("") == OPSET, f"torch wrote operators of the versions {versions}"
    graph.ir_version = IR_VERSION
    for node in graph.graph.node:
        # torch writes the place in the source code, with the paths of this machine.
        del node.metadata_props[:]
        node.doc_string = ""
    del graph.graph.value_info[:]
    return graph


def difference(encoder: Encoder, graph: onnx.ModelProto) -> str:
    """How the graph's user vectors differ from the backbone's, for several numbers of users and lengths; else empty."""
    session = open_session(graph.SerializeToString(), quiet=True)
    max_len = encoder.backbone.max_len
    lengths = sorted({1, 2, 3, max_len // 2, max_len - 1, max_len} & set(range(1, max_len + 1)))
    for size in (1, 4):
        for length in lengths:
            items_BL = probe(encoder.backbone, size, length)
            with torch.inference_mode():
                expected_BE = encoder(torch.from_numpy(items_BL)).numpy()
            try:
                found_BE: Floats = session.run([VECTORS], {ITEMS: items_BL})[0]
            except Exception as error:  # onnxruntime has a class of its own for each way to fail
                return f"length {length}: {str(error).splitlines()[0]}"
            if found_BE.shape != expected_BE.shape:
                return f"length {length}: shape {found_BE.shape} instead of {expected_BE.shape}"
            worst = float(np.abs(found_BE - expected_BE).max()) / max(float(np.abs(expected_BE).max()), 1e-30)
            if not worst <= TOLERANCE:
                return f"length {length}: differs by {worst:.1g} of the largest number"
    return ""


def probe(backbone: Backbone, size: int, length: int) -> Ids:
    """Histories to try, padded: the first has the whole length, the others are shorter, each with items of its own."""
    num_items = backbone.item_embedding.num_items
    items_BL = np.arange(size * length, dtype=np.int64).reshape(size, length) * 7 % num_items + 1
    lengths_B = np.maximum(1, length - np.arange(size))
    return np.where(np.arange(length) < lengths_B[:, None], items_BL, 0)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keeps the exporter's progress and its remarks on torch's own code from the screen."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
