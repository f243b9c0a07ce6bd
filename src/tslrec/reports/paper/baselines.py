"""The methods of Table 2 whose language model recommends by itself, and the backbones that they are compared with."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tslrec.config import section_defaults
from tslrec.pipeline.choices import choice_place, choice_title
from tslrec.reports.paper.document import TableCell, TableView
from tslrec.reports.paper.seed_rows import ABLATIONS, Row

LLM_BASELINES = ("pod", "p5", "llamarec", "e4srec")
"""By their names in `configs/method`, in the order of the paper's Table 2."""

LLM_TITLES = {"pod": "POD", "p5": "P5", "llamarec": "LlamaRec", "e4srec": "E4SRec"}
"""Their names in the paper."""

FURTHER_BACKBONES = ("fpmc", "bert4rec")
"""Backbones that the paper cites and its Table 2 does not have."""

SHORTENED = ("llamarec.share", "llamarec.history", "llamarec.title_tokens", "p5.share", "p5.max_epochs",
             "pod.steps_per_epoch", "pod.max_epochs")  # fmt: skip
"""Settings that make a method's work less; the table of language models has those that are not the default."""


def method_order(method: str) -> tuple[object, ...]:
    """Sorts methods as in the paper's Table 2: those whose language model recommends come first."""
    if method in LLM_BASELINES:
        return 0, LLM_BASELINES.index(method)
    return 1, choice_place("method", method)


def line_order(model: str, source: str, method: str, variant: str | None) -> tuple[object, ...]:
    """Sorts the lines of a data set's block in Table 2."""
    order = method_order(method)
    if order[0] == 0:
        return (*order, choice_place("model", model), model != source, variant or "")
    return 1, 0, choice_place("model", model), model != source, order[1], variant or ""


def row_order(row: Row) -> tuple[object, ...]:
    """Sorts rows of a data set as in the paper's Table 2."""
    return line_order(row.model_name, row.source_name, row.method_name, row.variant)


def expected_rows(
    data: str, published: Mapping[tuple[str, str | None, str], Sequence[float]]
) -> list[tuple[str | None, str]]:
    """The backbones (None: whichever) and methods that Table 2 has of a data set, and Base of the further backbones."""
    found = [(model, method) for of, model, method in published if of == data]
    return [*found, *((model, "base") for model in FURTHER_BACKBONES)]


def missing_rows(
    rows: Sequence[Row], data: str, published: Mapping[tuple[str, str | None, str], Sequence[float]]
) -> list[tuple[str | None, str]]:
    """Those of `expected_rows` that none of a data set's rows is of."""
    there = {(row.model_name, row.method_name) for row in rows} | {(None, row.method_name) for row in rows}
    return [each for each in expected_rows(data, published) if each not in there]


def method_name(method: str) -> str:
    """The title of a method, also of one that this framework does not have."""
    return LLM_TITLES.get(method) or choice_title("method", method)


def language_models(rows: Sequence[Row]) -> TableView:
    """What the numbers of methods with a language model are of: weights, shares, titles, and what is ranked."""
    lines: list[list[TableCell | str]] = []
    for row in rows:
        if row.method_name in ABLATIONS or row.cells[0].content.get("llm") is None:
            continue
        content = row.cells[0].content
        texts = (str(content["llm"]), "; ".join(training_of(content)), titles_of(content), ranking_of(content))
        names = [row.data_title, row.backbone_title, row.method_title]
        lines.append([*names, *(TableCell(text, sources=row.names) for text in texts)])
    columns = ("data set", "backbone", "method", "language model", "less than by default", "titles", "ranks")
    return TableView("What the language models are", columns, lines)


def training_of(content: Mapping[str, Any]) -> Iterator[str]:
    """The settings of a cell that make its method's work less than by default."""
    for key in SHORTENED:
        section, name = key.split(".")
        default = (section_defaults(section) or {}).get(name)
        value = content["config"].get(section, {}).get(name, default)
        if section in sections_of(content) and value != default:
            yield f"{key}={value:g}"


def sections_of(content: Mapping[str, Any]) -> set[str]:
    """The sections of the configuration that the stages of a cell read."""
    from tslrec.stages.registry import find_stage

    stages = (find_stage(name) for name in content["stages"])
    return {name for stage in stages if stage is not None for name in stage.sections}


def titles_of(content: Mapping[str, Any]) -> str:
    """How many items' titles a cell's method read."""
    titles = content.get("titles")
    if titles is None:
        return "none read"
    return f"of {titles['items'] - titles['missing']:,} of {titles['items']:,} items"


def ranking_of(content: Mapping[str, Any]) -> str:
    """What a cell's ranks are of."""
    if content.get("ranking") is not None:
        return str(content["ranking"])
    if "ranker" in content["stages"]:
        candidates = content["config"]["llamarec"]["candidates"]
        return f"{candidates} candidates reranked, then the retriever's order"
    return "all items"
