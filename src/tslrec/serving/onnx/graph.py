"""Joins the encoder and the head into one graph that holds its weights.

Shapes: I items (row 0 of a table is padding), E size of a user vector.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper, parser

from tslrec.serving.engine import Floats
from tslrec.serving.onnx.head import ITEMS, TABLE, VECTORS, head_text
from tslrec.system.errors import UserError

MOST_BYTES = 2**31 - 2**20
"""A file of protocol buffers holds less than 2 GiB."""


def recommender_graph(encoder: onnx.ModelProto, table_IE: Floats) -> onnx.ModelProto:
    """The whole recommender as one graph.

    Args:
        encoder: from item ids to user vectors.
        table_IE: scores the items. If the encoder looks items up in the same table, the graph holds it once.

    Raises:
        UserError: if the graph does not fit into one file.
    """
    graph = onnx.ModelProto()
    graph.CopyFrom(encoder)
    name = find_initialiser(graph, table_IE)
    if name is None:
        graph.graph.initializer.append(numpy_helper.from_array(table_IE, TABLE))
    else:
        rename(graph.graph, lambda each: TABLE if each == name else each)
    return joined(graph, int8=False)


def joined(encoder: onnx.ModelProto, *, int8: bool) -> onnx.ModelProto:
    """Encoder and head as one graph.

    Args:
        encoder: from item ids to user vectors; it holds the tables that the head reads.
        int8: see `head_text`.

    Raises:
        UserError: if the graph does not fit into one file.
    """
    head = parser.parse_model(head_text(int8=int8))
    graph = onnx.ModelProto()
    graph.CopyFrom(encoder)
    own = {ITEMS, VECTORS, *(value.name for value in head.graph.input)}
    # No name inside of the encoder can then be one of the head's.
    rename(graph.graph, lambda each: each if each in own or not each else f"encoder/{each}")
    graph.graph.name = "recommender"
    graph.producer_name, graph.producer_version = "tslrec", ""
    held = {each.name for each in graph.graph.initializer}
    graph.graph.node.extend(head.graph.node)
    graph.graph.input.extend(each for each in head.graph.input if each.name not in {VECTORS, *held})
    vectors = list(graph.graph.output)
    del graph.graph.output[:]
    graph.graph.output.extend([*head.graph.output, *vectors])
    if graph.ByteSize() > MOST_BYTES:
        raise UserError(f"an ONNX graph of {graph.ByteSize():,} bytes: a file holds 2 GiB; export without --onnx")
    onnx.checker.check_model(graph)
    return graph


def find_initialiser(graph: onnx.ModelProto, array: NDArray[Any]) -> str | None:
    """The name of the initialiser that holds an array; None if there is none."""
    for each in graph.graph.initializer:
        if tuple(each.dims) == array.shape and np.array_equal(numpy_helper.to_array(each), array):
            return str(each.name)
    return None


def rename(graph: onnx.GraphProto, new_name: Callable[[str], str]) -> None:
    """Renames every value of a graph and of the graphs in its nodes."""
    for node in graph.node:
        node.input[:] = [new_name(each) for each in node.input]
        node.output[:] = [new_name(each) for each in node.output]
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                rename(inner, new_name)
    for value in (*graph.input, *graph.output, *graph.initializer, *graph.value_info):
        value.name = new_name(value.name)
