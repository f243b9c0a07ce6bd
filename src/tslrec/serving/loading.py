"""Decides how a recommender is loaded: from a run or from an export, with PyTorch or onnxruntime."""

from __future__ import annotations

from pathlib import Path

from tslrec.serving.catalogue import Catalogue
from tslrec.serving.engine import Engine
from tslrec.serving.folder import INDEX, ONNX, is_export, read_catalogue, read_facts
from tslrec.serving.recommender import LIST_LENGTH, Recommender
from tslrec.serving.titles import with_titles
from tslrec.system.errors import UserError
from tslrec.system.optional_packages import installed, require

ENGINES = ("auto", "pytorch", "onnxruntime", "onnxruntime-int8", "flat", "hnsw")
INDEXES = ("flat", "hnsw")
"""Engines that find items in an index, and leave the rest to the engine that `auto` means."""


def load(
    path: str | Path, *, method: str | None = None, engine: str = "auto", titles: str | Path | None = None
) -> Recommender:
    """Loads a trained recommender: a folder that `tslrec export` wrote, or a finished run.

    Args:
        path: the folder; of a run, `artifacts/runs/NAME`, or the artifacts folder with a single run.
        method: which method of a run that compared several; None: the run's own. An export has one.
        engine: `pytorch`; `onnxruntime` (of a folder that was exported with `--onnx`) or `onnxruntime-int8`
            (`--int8`); `auto`: PyTorch if it is installed, else onnxruntime; `hnsw`: as `auto`, but the items are found
            in an HNSW graph (the folder's, of `--index`, else built now), which misses a few; `flat`: as `auto`, with
            faiss's exact index.
        titles: a CSV or Parquet file with the columns `item_id` and `title`; None: the titles that the folder has.

    Raises:
        UserError: if it is no such folder, a file is damaged, or the engine is not installed.
    """
    path = Path(path)
    if engine not in ENGINES:
        raise UserError(f"engine={engine}: must be one of {', '.join(ENGINES)}")
    if not path.is_dir():
        raise UserError(f"{path}: there is no such folder; name a finished run or a folder of tslrec export")
    if is_export(path):
        return load_export(path, engine, method=method, titles=None if titles is None else Path(titles))
    if engine.startswith("onnxruntime"):
        option = "--int8" if engine == "onnxruntime-int8" else "--onnx"
        raise UserError(f"{path}: a run has no ONNX graph; export it with tslrec export {path} --to FOLDER {option}")
    require("torch", "train")
    from tslrec.serving.list_engine import ListEngine
    from tslrec.serving.run_folder import catalogue_of, open_run
    from tslrec.serving.torch_engine import TorchEngine
    from tslrec.stages.restored import ListGenerator

    run = open_run(path, method)
    interactions = run.interactions()
    restored = run.restore(interactions)
    named = None if titles is None else Path(titles)
    facts = {**run.facts(), "max_len": restored.max_len}
    if isinstance(restored, ListGenerator):
        if engine in INDEXES:
            raise UserError(
                f"engine={engine}: {path} generates its lists, and has no item vectors to index; use engine=pytorch"
            )
        facts[LIST_LENGTH] = restored.length
        return Recommender(ListEngine(restored), catalogue_of(run, interactions, named), facts)
    if restored.reranker is not None and engine in INDEXES:
        raise UserError(
            f"engine={engine}: {path} reranks what it retrieves, which an index does not; use engine=pytorch"
        )
    found = with_index(engine, TorchEngine(restored), None)
    return Recommender(found, catalogue_of(run, interactions, named), facts)


def load_export(folder: Path, engine: str, *, method: str | None, titles: Path | None) -> Recommender:
    """Loads an exported folder; the arguments are those of `load`.

    Raises:
        UserError: if a file is damaged, the folder has another method, or the engine is not installed.
    """
    facts = read_facts(folder)
    if method is not None and method != facts.get("method"):
        raise UserError(f"{folder}: an export of the method {facts.get('method')}; name the run to load {method}")
    inner = engine
    if engine in ("auto", *INDEXES):
        inner = "pytorch" if installed("torch") or not (folder / ONNX).is_file() else "onnxruntime"
    found: Engine
    if inner == "pytorch":
        require("torch", "train")
        from tslrec.serving.torch_folder import load_torch

        found = load_torch(folder, facts)
    else:
        require("onnxruntime", "serve")
        from tslrec.serving.onnx.engine import load_onnx

        found = load_onnx(folder, facts, int8=inner == "onnxruntime-int8")
    graph = folder / INDEX if INDEX in facts["files"] else None
    catalogue = read_catalogue(folder)
    if titles is not None:
        from tslrec.data.titles_file import first_titles, read_titles_file

        rows = first_titles(read_titles_file(titles, "--titles FILE"))
        catalogue = Catalogue(with_titles(catalogue.items, rows))
    return Recommender(with_index(engine, found, graph), catalogue, facts)


def with_index(engine: str, inner: Engine, graph: Path | None) -> Engine:
    """The engine itself, or an index around it.

    Args:
        engine: one of `ENGINES`.
        inner: computes user vectors.
        graph: file of an HNSW graph over the same items.

    Raises:
        UserError: if faiss is not installed, or the graph does not fit.
    """
    if engine not in INDEXES:
        return inner
    require("faiss", "faiss")
    from tslrec.serving.index import approximate, exact

    return exact(inner) if engine == "flat" else approximate(inner, graph)
