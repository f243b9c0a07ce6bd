"""The recommender in int8: the tables with a scale per row, and the weights of the backbone.

The tables, which are nearly all of a recommender, stay int8 in memory, and the items are scored by products of
integers. The weights are int8 in the file; onnxruntime turns them into float32 once, when it loads the graph. Products
of activations in int8 (onnxruntime's dynamic quantisation) would save no further bytes, and one user's result would
depend on the others of its batch, because the scale of an activation is that of the whole batch.

Shapes: I items (row 0 of a table is padding), E size of a row.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from tslrec.serving.engine import Floats
from tslrec.serving.onnx.graph import joined
from tslrec.serving.onnx.head import SCALES, TABLE

STEPS = 127
"""A row's largest number, in absolute value, becomes 127 steps; so 0 stays 0."""
SHORTEST_ROW = 8
"""Rows of weights that are shorter stay float32: a scale for each would cost more than it saves."""


def quantise_rows(rows: Floats) -> tuple[NDArray[np.int8], Floats]:
    """Numbers in int8, and a scale for each row, the last dimension: rows = int8 rows × scales."""
    scales = (np.abs(rows).max(axis=-1) / STEPS).astype(np.float32)
    return np.rint(rows / np.maximum(scales, 1e-30)[..., None]).astype(np.int8), scales


def int8_graph(encoder: onnx.ModelProto, table_IE: Floats) -> onnx.ModelProto:
    """The whole recommender in int8; see `recommender_graph`.

    Args:
        encoder: from item ids to user vectors.
        table_IE: scores the items. If the encoder looks items up in the same table, the graph holds it once.
    """
    graph = onnx.ModelProto()
    graph.CopyFrom(encoder)
    tables: dict[str, NDArray[Any]] = dict(zip((TABLE, SCALES), quantise_rows(table_IE), strict=True))
    for each in looked_up(graph.graph, rows=len(table_IE)):
        array = numpy_helper.to_array(each)
        if np.array_equal(array, table_IE):
            names = TABLE, SCALES
        else:
            names = f"{each.name}_int8", f"{each.name}_scales"
            tables |= dict(zip(names, quantise_rows(array), strict=True))
        read_int8(graph.graph, each.name, *names)
        graph.graph.initializer.remove(each)
    int8_weights(graph.graph)
    graph.graph.initializer.extend(numpy_helper.from_array(array, name) for name, array in tables.items())
    return joined(graph, int8=True)


def looked_up(graph: onnx.GraphProto, rows: int) -> list[onnx.TensorProto]:
    """The initialisers with a row per item whose rows are only looked up."""
    uses = [(node.op_type, place, name) for node in graph.node for place, name in enumerate(node.input)]
    read = {name for operator, place, name in uses if (operator, place) == ("Gather", 0)}
    otherwise = {name for operator, place, name in uses if (operator, place) != ("Gather", 0)}
    return [
        each
        for each in graph.initializer
        if len(each.dims) == 2 and each.dims[0] == rows and each.name in read - otherwise
    ]


def read_int8(graph: onnx.GraphProto, name: str, table: str, scales: str) -> None:
    """Replaces each look-up of a float table by a look-up of int8 rows, multiplied with their scales."""
    nodes = []
    for node in graph.node:
        if node.op_type != "Gather" or node.input[0] != name:
            nodes.append(node)
            continue
        rows, out = node.input[1], node.output[0]
        nodes += [
            helper.make_node("Gather", [table, rows], [f"{out}_int8"]),
            helper.make_node("Gather", [scales, rows], [f"{out}_scales"]),
            *multiplied(f"{out}_int8", f"{out}_scales", out),
        ]
    del graph.node[:]
    graph.node.extend(nodes)


def int8_weights(graph: onnx.GraphProto) -> None:
    """Replaces each weight matrix by int8 rows, their scales, and the product of both."""
    nodes = []
    for each in list(graph.initializer):
        if each.data_type != onnx.TensorProto.FLOAT or len(each.dims) < 2 or each.dims[-1] < SHORTEST_ROW:
            continue
        rows_int8, scales = quantise_rows(numpy_helper.to_array(each))
        names = f"{each.name}_int8", f"{each.name}_scales"
        graph.initializer.remove(each)
        graph.initializer.extend(
            [numpy_helper.from_array(rows_int8, names[0]), numpy_helper.from_array(scales, names[1])]
        )
        nodes += multiplied(*names, each.name)
    nodes += graph.node
    del graph.node[:]
    graph.node.extend(nodes)


def multiplied(rows_int8: str, scales: str, result: str) -> list[onnx.NodeProto]:
    """The nodes that multiply each int8 row with its scale."""
    return [
        helper.make_node("Cast", [rows_int8], [f"{result}_steps"], to=onnx.TensorProto.FLOAT),
        helper.make_node("Constant", [], [f"{result}_last"], value_ints=[-1]),
        helper.make_node("Unsqueeze", [scales, f"{result}_last"], [f"{result}_column"]),
        helper.make_node("Mul", [f"{result}_steps", f"{result}_column"], [result]),
    ]
