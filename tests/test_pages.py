"""The pages say what is true: commands compose or parse; targets, paths and links exist; the results are the cells'."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import statistics
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import pytest

from support.checkout import CHECKOUT
from tslrec import cli
from tslrec.cli.main import Parser, verb_names
from tslrec.pipeline.choices import choice_title
from tslrec.pipeline.composition import compose_overrides
from tslrec.pipeline.result_settings import REMOVED_SETTINGS

PAGES = [CHECKOUT / name for name in ("README.md", "CONTRIBUTING.md", "RESULTS.md")]
PAGES += sorted((CHECKOUT / "docs").rglob("*.md"))
TEXTS = {str(page.relative_to(CHECKOUT)): page.read_text(encoding="utf-8") for page in PAGES}
README = TEXTS["README.md"]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?:[A-Z_]+=\S+ )*(?:\.venv/bin/)?(?:python|tslrec|make)\b")
PLACEHOLDER = re.compile(r"…|\b(?:VERB|TARGET|GROUP)\b|=x\b|=FILE\b")
"""What stands for something that a reader fills in."""

MODELS = ("gru4rec", "caser", "sasrec", "fmlp")
METHODS = ("base", "ci", "tslrec")
PROTOCOLS = ("masked", "unmasked")


def spans(text: str) -> list[str]:
    """The inline code of a page, line breaks within it as blanks."""
    return [" ".join(span.split()) for span in re.findall(r"`([^`]+)`", FENCE.sub("", text))]


def commands(program: str) -> list[tuple[str, ...]]:
    """The words behind a program's name in every command of the pages, sorted; placeholders are left out."""
    found = set()
    for text in TEXTS.values():
        lines = [line.strip() for _, block in FENCE.findall(text) for line in block.splitlines()]
        for command in (*lines, *spans(text)):
            if not COMMAND.match(command) or PLACEHOLDER.search(command):
                continue
            words = shlex.split(command, comments=True)
            while "=" in words[0]:
                words.pop(0)
            if Path(words[0]).name == program:
                found.add(tuple(words[1:]))
    return sorted(found)


TRAININGS = [words[1:] for words in commands("python") if words[:1] == ("train.py",) and "--help" not in words]
VERB_COMMANDS = [words for words in commands("tslrec") if words and "--help" not in words]


def combinations(words: Sequence[str]) -> list[list[str]]:
    """Runs of a command line; of a sweep as many as its longest list has values, each value in one of them at least."""
    if "-m" not in words:
        return [list(words)]
    choices = [(word.split("=")[0], word.split("=")[1].split(",")) for word in words if word != "-m"]
    longest = max(len(values) for _, values in choices)
    return [[f"{key}={values[min(i, len(values) - 1)]}" for key, values in choices] for i in range(longest)]


def section(page: str, heading: str) -> str:
    """The text below a heading of the second level, up to the next."""
    return TEXTS[page].split(f"\n## {heading}\n")[1].split("\n## ")[0]


def test_there_are_commands() -> None:
    assert any("experiment=tslrec_fmlp_beauty" in words for words in TRAININGS)
    assert {"audit", "plan", "paper", "extend"} <= {words[0] for words in VERB_COMMANDS}


@pytest.mark.parametrize("words", TRAININGS, ids=" ".join)
def test_a_training_of_the_pages_composes(words: Sequence[str]) -> None:
    for overrides in combinations(words):
        compose_overrides(overrides)


@pytest.mark.parametrize("words", VERB_COMMANDS, ids=" ".join)
def test_a_verb_of_the_pages_parses(words: Sequence[str]) -> None:
    """A verb alone may be a mention of one that needs arguments."""
    name, *rest = words
    assert name in verb_names()
    if rest:
        parser = Parser(prog=f"tslrec {name}", allow_abbrev=False)
        importlib.import_module(f"{cli.__name__}.{name}").add_arguments(parser)
        compose_overrides(getattr(parser.parse_intermixed_args(rest), "overrides", []))


def test_the_make_targets_of_the_pages_exist() -> None:
    makefile = (CHECKOUT / "Makefile").read_text(encoding="utf-8")
    named = {words[0] for words in commands("make") if words}
    assert {"run", "test", "setup"} <= named
    assert [target for target in sorted(named) if not re.search(rf"^{target}:", makefile, flags=re.MULTILINE)] == []


def test_the_programs_of_the_pages_exist() -> None:
    """Benchmarks that are run by their path, and the tests of a recipe."""
    paths = {
        word for words in commands("python") for word in words if re.match(r"(?:benchmarks|tests)/|\w+\.py$", word)
    }
    assert "benchmarks/scale.py" in paths
    assert [path for path in sorted(paths) if not (CHECKOUT / path).exists()] == []


def test_the_paths_of_the_pages_exist() -> None:
    """A file that is to be added, `x`, in a folder that exists."""
    folders = "|".join(("src", "tests", "configs", "docs", "results", "benchmarks", r"\.ci"))
    named = {
        path
        for text in TEXTS.values()
        for span in spans(text)
        for path in re.findall(rf"(?:^| )((?:{folders})/[\w./-]+)", span)
        if not any(part.isupper() for part in Path(path).parts)
    }
    named = {re.sub(r"/x(?:\.\w+|/)?$", "", path) for path in named}
    assert "src/tslrec/stages/registry.py" in named
    assert [path for path in sorted(named) if not (CHECKOUT / path).exists()] == []


def test_the_files_to_add_belong_to_folders_that_exist() -> None:
    """The table of README, whose paths are below src/tslrec and configs."""
    rows = [line for line in section("README.md", "Extending").splitlines() if line.startswith("|")][2:]
    named = [span for row in rows for span in spans(row) if "/" in span]
    assert len(named) > 10
    for span in named:
        path = re.sub(r"/x(?:\.\w+|/)?$", "", span)
        assert any((folder / path).exists() for folder in (CHECKOUT / "src" / "tslrec", CHECKOUT / "configs")), span


def test_the_tree_of_the_rooms_is_complete() -> None:
    tree = FENCE.findall(section("README.md", "Where things are"))[0][1]
    named = re.findall(r"^  ([\w.]+)/?  ", tree, flags=re.MULTILINE)
    package = CHECKOUT / "src" / "tslrec"
    there = {path.parent.name for path in package.glob("*/__init__.py")} | {path.name for path in package.glob("*.py")}
    assert sorted(named) == sorted(there - {"__init__.py"})


@pytest.mark.parametrize("page", TEXTS)
def test_the_links_of_a_page_resolve(page: str) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", FENCE.sub("", TEXTS[page]))
    relative = [link.split("#")[0] for link in links if not link.startswith(("http", "#"))]
    assert [link for link in relative if not (CHECKOUT / page).parent.joinpath(link).exists()] == []


@pytest.mark.parametrize("page", TEXTS)
def test_the_anchors_of_a_page_are_its_headings(page: str) -> None:
    text = FENCE.sub("", TEXTS[page])
    headings = re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE)
    there = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    assert set(re.findall(r"\]\(#([^)\s]+)\)", text)) - there == set()


def test_the_index_lists_every_page() -> None:
    links = set(re.findall(r"\]\(((?:research/)?[\w-]+\.md)\)", TEXTS["docs/README.md"]))
    docs = CHECKOUT / "docs"
    assert links == {path.relative_to(docs).as_posix() for path in docs.rglob("*.md")} - {"README.md"}


@pytest.mark.parametrize(("page", "most"), [("README.md", 150), ("RESULTS.md", 300)])
def test_a_page_is_short(page: str, most: int) -> None:
    assert len(TEXTS[page].splitlines()) <= most


def test_a_log_is_linked_from_the_results() -> None:
    """Every log of docs/research is the evidence of some section of RESULTS.md."""
    links = set(re.findall(r"\]\((docs/research/[\w-]+\.md)\)", TEXTS["RESULTS.md"]))
    assert links == {page for page in TEXTS if page.startswith("docs/research/")}


def test_the_results_table_is_that_of_the_cells() -> None:
    """NDCG@10 on Beauty: the paper's, and means over the seeds of the committed cells without a variant."""
    measured: dict[tuple[str, str], list[dict[str, float]]] = defaultdict(list)
    for path in (CHECKOUT / "results" / "cells").glob("*.json"):
        cell = json.loads(path.read_text(encoding="utf-8"))
        plain = cell["variant"] is None and cell["model"] == cell["source_model"]
        if plain and cell["data"] == "beauty" and cell["preset"] == "tuned":
            measured[cell["model"], cell["method"]].append(cell["metrics"])
    published = json.loads((CHECKOUT / "results" / "paper.json").read_text(encoding="utf-8"))
    column = published["metrics"].index("NDCG@10")
    paper = {
        (row["model"], row["method"]): row["values"][column] for row in published["table2"] if row["data"] == "beauty"
    }
    rows = [line for line in section("README.md", "Results beside the paper's").splitlines() if line.startswith("|")]
    shown = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[2:]]
    assert shown == [
        [
            choice_title("model", model),
            *(digits([paper[model, method]]) for method in METHODS),
            *(
                digits([metrics[f"test/{protocol}/NDCG@10"] for metrics in measured[model, method]])
                for protocol in PROTOCOLS
                for method in METHODS
            ),
            seeds([len(measured[model, method]) for method in METHODS]),
        ]
        for model in MODELS
    ]


def digits(values: Sequence[float]) -> str:
    """The mean as the table has it; a dash where nothing was measured."""
    return f"{statistics.fmean(values):.4f}".lstrip("0") if values else "–"


def seeds(counts: Sequence[int]) -> str:
    """How many there are for each method; a dash where nothing was measured."""
    return ", ".join(str(count or "–") for count in counts) if any(counts) else "–"


@pytest.mark.parametrize("page", [page for page in TEXTS if not page.startswith("docs/research/")])
def test_a_page_names_no_removed_option(page: str) -> None:
    """The logs of docs/research keep what was measured with them."""
    removed = {*REMOVED_SETTINGS, "fusion=gate_categories", "plan=true", "+model."}
    assert [option for option in sorted(removed) if option in TEXTS[page]] == []


@pytest.mark.parametrize("page", TEXTS)
def test_a_page_has_no_gap(page: str) -> None:
    assert not re.search(r"@[A-Z]+@|TODO|TBD|PLACEHOLDER", TEXTS[page])
