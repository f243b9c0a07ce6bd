"""Writes a run's recommender into a folder of its own, free of the language model and of the artifacts of training.

  tslrec export artifacts/runs/NAME --to recommender
  tslrec export artifacts --to recommender --titles titles.csv
  tslrec export artifacts --to recommender --onnx --int8 --index

The folder has the finished item table, the weights, the items and a model card. With --onnx it also has the whole
recommender as one ONNX graph, whose lists are compared with PyTorch's before the folder appears.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tslrec.system.errors import UserError

SUMMARY = "write a run's recommender into a folder to use, serve or publish it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the verb's arguments to its parser."""
    parser.add_argument("run", type=Path, metavar="RUN", help="artifacts/runs/NAME, or artifacts with a single run")
    parser.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="the new folder")
    parser.add_argument("--method", metavar="NAME", help="of a run that compared several; default the run's own")
    parser.add_argument("--titles", type=Path, metavar="FILE", help="CSV or Parquet: item_id, title")
    parser.add_argument("--onnx", action="store_true", help="also as one ONNX graph, which needs no PyTorch")
    parser.add_argument("--int8", action="store_true", help="also as an ONNX graph in int8, about a third of the size")
    parser.add_argument("--index", action="store_true", help="also a graph of neighbours (HNSW) for large catalogues")


def run(arguments: argparse.Namespace) -> None:
    """Exports the recommender, and prints what was written.

    Raises:
        UserError: if there is no such run, the folder exists, or a package for an option is missing.
    """
    if os.path.lexists(arguments.to):
        raise UserError(f"{arguments.to}: exists already; name a new folder, or delete it")
    from tslrec.system.optional_packages import require

    wants_onnx = arguments.onnx or arguments.int8
    if wants_onnx:
        for package in ("onnx", "onnxscript", "onnxruntime"):
            require(package, "onnx")
    if arguments.index:
        require("faiss", "faiss")
    require("torch", "train")
    from tslrec.serving.export import Extra, export
    from tslrec.serving.run_folder import open_run

    finished = open_run(arguments.run, arguments.method)
    extras: list[Extra] = []
    if wants_onnx:
        from tslrec.serving.onnx.export import OnnxExtra

        extras.append(OnnxExtra(finished.interactions(), int8=arguments.int8))
    if arguments.index:
        from tslrec.serving.index_export import IndexExtra

        extras.append(IndexExtra(finished.interactions()))
    facts = export(finished, arguments.to, titles=arguments.titles, extras=extras)
    print("\n".join(report(arguments.to, facts)))


def report(folder: Path, facts: Mapping[str, Any]) -> list[str]:
    """The lines about an exported folder: its files, what was measured, and how to use it."""
    lines = [f"{facts['method']} · {facts['model']} · {facts['data']}: {facts['items']:,} items, in {folder}"]
    lines += [f"  {name:24} {each['bytes'] / 1e6:10,.3f} MB" for name, each in sorted(facts["files"].items())]
    if "onnx" in facts:
        checked = facts["onnx"]["checked"]
        lines.append(
            f"ONNX: {checked['same_top_10']:.2%} of {checked['lists']:,} lists are PyTorch's; "
            f"{checked['near_ties']:,} differ by near ties only"
        )
        small = facts["onnx"].get("int8", {})
        if "loss" in small:
            parts = [
                f"{name} {small['float32'][name]:.4f} → {small['int8'][name]:.4f}" for name in sorted(small["loss"])
            ]
            lines.append(f"int8: {', '.join(parts)}, over {small['users']:,} test users (seen items masked)")
    if "index" in facts:
        found = facts["index"]
        lines.append(f"HNSW: finds {found['recall@10']:.2%} of the 10 best items of {found['users']:,} users")
    engine = ', engine="onnxruntime"' if "onnx" in facts else ""
    lines.append(f'Python: import tslrec; tslrec.load("{folder}"{engine}).recommend([[ITEM, ITEM, …]], k=10)')
    return lines
