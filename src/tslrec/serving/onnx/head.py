"""The part of the graph that turns user vectors into lists: scores, masks and top-k, as ONNX text.

Shapes: B users, I items (row 0 of a table is padding), E size of a user vector, S places for seen items, C candidates,
K places of a list.
"""

from __future__ import annotations

from typing import Final

OPSET: Final = 18
"""Version of ONNX's operators: the one that torch's exporter translates to."""
IR_VERSION: Final = 10
"""Version of ONNX's file format; onnxruntime reads it since 1.18."""

ITEMS, SEEN, CANDIDATES, LENGTH = "items", "seen", "candidates", "k"
"""Inputs of the graph."""
IDS, SCORES, VECTORS = "ids", "scores", "user_vectors"
"""Outputs of the graph."""
TABLE, SCALES = "output_table", "output_scales"
"""The table that scores the items, and in int8 the scale of each of its rows: initialisers of the graph."""

FLOAT_TABLE = "float[rows, E] output_table"
FLOAT_SCORES = "scores_BI = Gemm <transB = 1> (user_vectors, output_table, bias_I)"

INT8_TABLE = "int8[rows, E] output_table, float[rows] output_scales"
INT8_COLUMNS = "table_EI = Transpose <perm = [1, 0]> (output_table)"
"""Outside of the condition, where onnxruntime computes it once."""
INT8_SCORES = """
      last_axis = Constant <value_ints = [1]> ()
      steps = Constant <value_float = 63.0> ()
      finer = Constant <value_float = 126.0> ()
      middle = Constant <value_float = 64.0> ()
      middle_int8 = Cast <to = 2> (middle)
      smallest = Constant <value_float = 1e-30> ()
      absolute_BE = Abs (user_vectors)
      largest_B1 = ReduceMax <keepdims = 1> (absolute_BE, last_axis)
      step_B1 = Div (largest_B1, steps)
      user_scale_B1 = Max (step_B1, smallest)
      scaled_BE = Div (user_vectors, user_scale_B1)
      coarse_BE = Round (scaled_BE)
      rest_BE = Sub (scaled_BE, coarse_BE)
      scaled_rest_BE = Mul (rest_BE, finer)
      fine_BE = Round (scaled_rest_BE)
      both_BE = Concat <axis = 0> (coarse_BE, fine_BE)
      shifted_BE = Add (both_BE, middle)
      user_int8_BE = Cast <to = 2> (shifted_BE)
      products_BI = MatMulInteger (user_int8_BE, table_EI, middle_int8)
      sums_BI = Cast <to = 1> (products_BI)
      coarse_BI, fine_BI = Split <axis = 0, num_outputs = 2> (sums_BI)
      fine_share_BI = Div (fine_BI, finer)
      steps_BI = Add (coarse_BI, fine_share_BI)
      by_user_BI = Mul (steps_BI, user_scale_B1)
      by_both_BI = Mul (by_user_BI, output_scales)
      scores_BI = Add (by_both_BI, bias_I)
"""
TEXT = """
<ir_version: {ir_version}, opset_import: ["" : {opset}]>
head (float[B, E] user_vectors, {table}, int64[B, S] seen, int64[C] candidates, int64[one] k)
  => (int64[B, K] ids, float[B, K] scores)
{{
  nothing = Constant <value_int = 0> ()
  none_left = Constant <value_float = -inf> ()
  {before}
  wanted_1 = Greater (k, nothing)
  wanted = Squeeze (wanted_1)
  ids, scores = If (wanted) <
    then_branch = lists () => (int64[B, K] top_ids, float[B, K] top_scores) {{
      free = Constant <value_float = 0.0> ()
      number_of_candidates = Size (candidates)
      all_allowed = Equal (number_of_candidates, nothing)
      start = Where (all_allowed, free, none_left)
      rows = Shape <start = 0, end = 1> (output_table)
      start_I = Expand (start, rows)
      shape_C = Shape (candidates)
      free_C = Expand (free, shape_C)
      bias_I = ScatterElements (start_I, candidates, free_C)
      {scores}
      users = Shape <start = 0, end = 1> (user_vectors)
      one_column = Constant <value_ints = [1]> ()
      shape_B1 = Concat <axis = 0> (users, one_column)
      padding_B1 = Expand (nothing, shape_B1)
      gone_BS = Concat <axis = 1> (padding_B1, seen)
      shape_BS = Shape (gone_BS)
      masks_BS = Expand (none_left, shape_BS)
      masked_BI = ScatterElements <axis = 1> (scores_BI, gone_BS, masks_BS)
      top_scores, columns_BK = TopK <axis = 1, largest = 1, sorted = 1> (masked_BI, k)
      empty_BK = Equal (top_scores, none_left)
      top_ids = Where (empty_BK, nothing, columns_BK)
    }},
    else_branch = vectors_only () => (int64[B, K] no_ids, float[B, K] no_scores) {{
      number_of_users = Shape <start = 0, end = 1> (user_vectors)
      no_column = Constant <value_ints = [0]> ()
      shape_B0 = Concat <axis = 0> (number_of_users, no_column)
      no_ids = Expand (nothing, shape_B0)
      no_scores = Expand (none_left, shape_B0)
    }}
  >
}}
"""
"""Scores are masked by minus infinity: through the bias of each item that is no candidate, and at the seen items and
padding of each user. Of equal scores TopK takes the lower item first: ONNX demands it. With k = 0 no item is scored."""


def head_text(*, int8: bool) -> str:
    """The head in ONNX's text format.

    Args:
        int8: whether the table that scores the items is int8, with a scale per row.
    """
    return TEXT.format(
        ir_version=IR_VERSION,
        opset=OPSET,
        table=INT8_TABLE if int8 else FLOAT_TABLE,
        before=INT8_COLUMNS if int8 else "",
        scores=INT8_SCORES.strip() if int8 else FLOAT_SCORES,
    )
