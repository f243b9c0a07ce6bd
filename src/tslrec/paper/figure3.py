"""Figure 3: what the language model costs TSLRec and E4SRec, measured, counted, and carried over to Llama-2-13B."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tslrec.choices import choice_title, placed
from tslrec.errors import UserError
from tslrec.files import write_json
from tslrec.paper.cells import CellResult
from tslrec.paper.rows import rows_of
from tslrec.paper.views import Chart, Point, Section, Series, Shown, TableView

LLMS = {"smollm2_135m": "SmolLM2-135M", "llama2_13b": "Llama-2-13B"}
PHASES = {
    "sft": "TSLRec, SFT",
    "e4srec": "E4SRec, training",
    "augmentation": "TSLRec, inference",
    "e4srec_inference": "E4SRec, inference",
}


def count(path: Path) -> None:
    """Writes what a language model would have to do for each data set of the paper, from the data alone.

    Raises:
        UserError: if a data set cannot be had.
    """
    from tslrec.composition import compose_overrides
    from tslrec.planning import plan_of

    plans: dict[str, Any] = {}
    for data in placed("data"):
        for llm in LLMS:
            plan = plan_of(compose_overrides([f"data={data}", "model=sasrec", "preset=tuned", f"llm={llm}"]))
            works = {name: {way: asdict(work) for way, work in getattr(plan, name).items()} for name in PHASES}
            plans.setdefault(data, {})[llm] = {**works, "prompts_are_exact": plan.prompts_are_exact}
    command = "python train.py data=DATA model=sasrec preset=tuned llm=LLM plan=true"
    write_json(path, {"command": command, "plans": plans})


def figure3(cells: Sequence[CellResult], results: Path) -> Section:
    """Times as measured by `make bench-llm` and within the cells, and counts of instances and operations."""
    measured, counted = results / "bench" / "llm.json", results / "figure3.json"
    charts, tables, wanting = [], [], []
    if measured.is_file():
        charts.append(measured_chart(read(measured)["figures"], "results/bench/llm.json"))
    else:
        wanting.append("no measurement yet: make bench-llm")
    if counted.is_file():
        plans = read(counted)["plans"]
        charts.append(work_chart(plans, "results/figure3.json"))
        tables.append(work_table(plans, "results/figure3.json"))
    else:
        wanting.append("nothing counted yet: tslrec paper figure3")
    spent = spent_table(cells)
    return Section(
        "figure3",
        "Figure 3: what the language model costs",
        "TSLRec shows it a user once and an item once; E4SRec shows it every interaction, and every user anew.",
        tables,
        charts,
        wanting="; ".join(wanting),
        more=[spent] if spent.rows else [],
    )


def read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable ({error}); make it anew") from error


def measured_chart(figures: dict[str, Any], source: str) -> Chart:
    """Beauty, the same language model and machine: batches timed, the whole scaled from them."""
    series = []
    for way, title in (("shared", "the prompt shared"), ("naive", "a prompt each")):
        points: list[Point | None] = []
        for name in PHASES:
            key = f"{name}_whole_{way}"
            points.append(Point(figures[key]["value"] / 60, detail=f"{key} in {source}", cells=(source,)))
        series.append(Series(title, points))
    labels = list(PHASES.values())
    notes = ["An epoch of each training, a pass of each inference; SmolLM2-135M, fp32, two CPU cores; make bench-llm."]
    return Chart("Measured on Beauty", "minutes", labels, series, scale="log", number=",.1f", notes=notes)


def work_chart(plans: dict[str, Any], source: str) -> Chart:
    """Operations for Llama-2-13B, as run here (with the prompt shared)."""
    series = [
        Series(
            title,
            [
                Point(plans[data]["llama2_13b"][phase]["shared"]["flops"] / 1e15, detail=phase, cells=(source,))
                for data in plans
            ],
        )
        for phase, title in PHASES.items()
    ]
    labels = [choice_title("data", data) for data in plans]
    notes = ["An epoch of each training, counted from the data and the model's sizes, the prompt shared; not run."]
    return Chart("Llama-2-13B", "PFLOP", labels, series, scale="log", number=",.1f", notes=notes)


def work_table(plans: dict[str, Any], source: str) -> TableView:
    """Instances, tokens and operations."""
    rows: list[list[Shown | str]] = []
    for data, by_llm in plans.items():
        for phase, title in PHASES.items():
            line: list[Shown | str] = [choice_title("data", data), title]
            tokens = by_llm["llama2_13b"][phase]["shared"]["tokens"]
            line += [Shown(f"{tokens[name]:,}", cells=(source,)) for name in ("examples", "needed")]
            line += [Shown(f"{by_llm[llm][phase]['shared']['flops'] / 1e15:,.3g}", cells=(source,)) for llm in LLMS]
            rows.append(line)
    columns = ["data set", "", "instances", "tokens", *(f"PFLOP, {title}" for title in LLMS.values())]
    estimated = [
        title for llm, title in LLMS.items() if not all(each[llm]["prompts_are_exact"] for each in plans.values())
    ]
    notes = ["Tokens of Llama-2-13B, without padding, the prompt once a step."]
    if estimated:
        notes.append(f"Without its tokenizer the length of the prompt is estimated for {' and '.join(estimated)}.")
    return TableView("Instances and operations", columns, rows, notes)


def spent_table(cells: Sequence[CellResult]) -> TableView:
    """What the stages with a language model took within the cells."""
    rows: list[list[Shown | str]] = []
    for row in rows_of(cells):
        for cell in row.cells:
            for stage in ("sft", "augment", "untuned_llm", "e4srec"):
                if (facts := cell.content["stages"].get(stage)) is None:
                    continue
                where = (cell.name,)
                rows.append(
                    [
                        f"{row.data}, {row.backbone}, {row.method}, seed {cell.seed}",
                        stage,
                        Shown(f"{facts['wall_seconds']:,.0f}", facts["machine"]["processor"], where),
                        Shown(f"{facts['peak_memory_gib']:.2f}", cells=where),
                        str(cell.content["threads"]),
                    ]
                )
    notes = ["Wall times of whole stages within the cells, other work on the machine included."]
    return TableView("Spent in the cells", ["", "stage", "wall s", "peak GiB", "threads"], rows, notes)
