"""Figure 3: the cost of the language model in TSLRec and its rivals: measured, and counted for Llama-2-13B."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tslrec.pipeline.choices import choice_title
from tslrec.reports.paper.document import Chart, Point, Section, Series, TableCell, TableView
from tslrec.reports.paper.sections import SectionInputs, section
from tslrec.reports.paper.seed_rows import Row
from tslrec.stages.registry import STAGES
from tslrec.system.errors import UserError
from tslrec.system.files import write_json

if TYPE_CHECKING:
    from tslrec.config import Config
    from tslrec.reports.costs.work import Work

DATA = ("beauty", "ml1m", "yelp")
"""The paper's data sets, by their names in `configs/data`, in the order of its tables."""

LLMS = {"smollm2_135m": "SmolLM2-135M", "llama2_13b": "Llama-2-13B"}
"""The language models that are counted, by their names in `configs/llm`."""

PHASES = {
    "sft": "TSLRec, SFT",
    "e4srec": "E4SRec, training",
    "augmentation": "TSLRec, inference",
    "e4srec_inference": "E4SRec, inference",
}
"""The phases that run the language model, by their names in a plan."""

RIVALS = {"llamarec": "LlamaRec", "p5": "P5, decoder-only", "pod": "POD on T5-small"}
"""The rivals that are counted beside them, by their names in `rival_forecast.PLANS`."""

PARTS = {"epoch": "training", "inference": "inference"}
"""The phases of a rival, by their names in its plan."""


def count(path: Path) -> None:
    """Counts the work of the language models for each of the paper's data sets, from the data alone, and writes it.

    Args:
        path: the JSON file, `results/figure3.json`.

    Raises:
        UserError: if a data set can neither be found nor downloaded.
    """
    from tslrec.pipeline.composition import compose_overrides
    from tslrec.reports.costs.forecast import plan_of

    plans: dict[str, Any] = {}
    for data in DATA:
        for llm in LLMS:
            config = compose_overrides([f"data={data}", "model=sasrec", "preset=tuned", f"llm={llm}"])
            plan = plan_of(config)
            works = {name: {way: counts(work) for way, work in getattr(plan, name).items()} for name in PHASES}
            works |= rival_counts(config)
            plans.setdefault(data, {})[llm] = {**works, "prompts_are_exact": plan.prompts_are_exact}
    command = "tslrec plan data=DATA model=sasrec preset=tuned llm=LLM"
    write_json(path, {"command": command, "plans": plans})


def counts(work: Work) -> dict[str, Any]:
    """What a phase computes, whatever the device."""
    tokens = {name: getattr(work.tokens, name) for name in ("examples", "steps", "needed", "computed", "seen")}
    return {"tokens": tokens, "flops": work.flops}


def rival_counts(config: Config) -> dict[str, Any]:
    """What the phases of the rivals compute; POD's do not depend on the configured language model."""
    from tslrec.pipeline.recipes import stage_seed
    from tslrec.reports.costs.rival_forecast import rival_plans_of

    plans = rival_plans_of(config, list(RIVALS), stage_seed(config.seed, "sft"))
    found = {}
    for name, plan in zip(RIVALS, plans, strict=True):
        for part in PARTS:
            phase = getattr(plan, part)
            tokens = {"examples": phase.examples, "needed": phase.needed, "computed": phase.tokens}
            counted = {"tokens": tokens, "flops": phase.flops}
            found[f"{name}_{part}"] = {"shared": counted, "assumptions": list(plan.assumptions)}
    return found


def counted_phases(plans: dict[str, Any], part: str | None = None) -> dict[str, str]:
    """The titles of the phases that every data set and language model has counts of; older files have no rivals.

    Args:
        plans: the counts, by data set and language model.
        part: only the trainings or the inferences, by a value of `PARTS`; None: both.
    """
    rivals = {f"{name}_{part}": f"{title}, {words}" for name, title in RIVALS.items() for part, words in PARTS.items()}
    counts = [each for by_llm in plans.values() for each in by_llm.values()]
    found = {phase: title for phase, title in {**PHASES, **rivals}.items() if all(phase in each for each in counts)}
    if part is None:
        return found
    inferences = {phase for phase in found if phase == "augmentation" or phase.endswith("inference")}
    return {phase: title for phase, title in found.items() if (phase in inferences) == (part == PARTS["inference"])}


@section("figure3", place=40)
def figure3(inputs: SectionInputs) -> Section:
    """Times measured by `make bench-llm` and within the cells, and counts of instances and operations.

    Raises:
        UserError: if a file cannot be read.
    """
    measured, counted = inputs.results / "bench" / "llm.json", inputs.results / "figure3.json"
    charts, tables, missing = [], [], []
    if measured.is_file():
        charts.append(measured_chart(read(measured)["figures"], "results/bench/llm.json"))
    else:
        missing.append("no measurement yet: make bench-llm")
    if counted.is_file():
        plans = read(counted)["plans"]
        charts += [work_chart(plans, part, "results/figure3.json") for part in PARTS.values()]
        tables.append(work_table(plans, "results/figure3.json"))
    else:
        missing.append("nothing counted yet: tslrec paper figure3")
    spent = spent_table(inputs.rows)
    return Section(
        "figure3",
        "Figure 3: what the language model costs",
        "TSLRec shows it a user once and an item once; E4SRec shows it every interaction, and every user anew. "
        "LlamaRec shows every interaction beside twenty titled candidates, P5 in several texts; POD shows two texts a "
        "user.",
        tables,
        charts,
        missing_note="; ".join(missing),
        more=[spent] if spent.rows else [],
    )


def read(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        UserError: if it cannot be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable ({error}); delete it and create it again") from error


def measured_chart(figures: dict[str, Any], source: str) -> Chart:
    """Times on Beauty, all with one language model on one machine: some batches are timed and scaled to the whole."""
    series = []
    for way, title in (("shared", "the prompt shared"), ("naive", "a prompt each")):
        points: list[Point | None] = []
        for name in PHASES:
            key = f"{name}_whole_{way}"
            points.append(Point(figures[key]["value"] / 60, detail=f"{key} in {source}", sources=(source,)))
        series.append(Series(title, points))
    labels = list(PHASES.values())
    notes = ["An epoch of each training, a pass of each inference; SmolLM2-135M, fp32, two CPU cores; make bench-llm."]
    return Chart("Measured on Beauty", "minutes", labels, series, scale="log", number=",.1f", notes=notes)


def work_chart(plans: dict[str, Any], part: str, source: str) -> Chart:
    """Floating-point operations for Llama-2-13B with the shared prompt; POD's for T5-small.

    Args:
        plans: the counts, by data set and language model.
        part: the trainings or the inferences, by a value of `PARTS`.
        source: the file of the counts.
    """
    series = [
        Series(
            title.rpartition(", ")[0],
            [
                Point(plans[data]["llama2_13b"][phase]["shared"]["flops"] / 1e15, detail=phase, sources=(source,))
                for data in plans
            ],
        )
        for phase, title in counted_phases(plans, part).items()
    ]
    labels = [choice_title("data", data) for data in plans]
    what = "An epoch of each training" if part == PARTS["epoch"] else "A pass of each inference"
    notes = [f"{what}, counted from the data and the model's sizes, the prompt shared; not run."]
    return Chart(f"Llama-2-13B, {part}", "PFLOP", labels, series, scale="log", number=",.2f", notes=notes)


def work_table(plans: dict[str, Any], source: str) -> TableView:
    """Instances, tokens and operations of every phase on every data set."""
    rows: list[list[TableCell | str]] = []
    for data, by_llm in plans.items():
        for phase, title in counted_phases(plans).items():
            line: list[TableCell | str] = [choice_title("data", data), title]
            tokens = by_llm["llama2_13b"][phase]["shared"]["tokens"]
            line += [TableCell(f"{tokens[name]:,}", sources=(source,)) for name in ("examples", "needed")]
            line += [TableCell(petaflop(by_llm[llm][phase]["shared"]["flops"]), sources=(source,)) for llm in LLMS]
            rows.append(line)
    columns = ["data set", "", "instances", "tokens", *(f"PFLOP, {title}" for title in LLMS.values())]
    estimated = [
        title for llm, title in LLMS.items() if not all(each[llm]["prompts_are_exact"] for each in plans.values())
    ]
    notes = ["Tokens of Llama-2-13B, without padding, the prompt once a step."]
    assumed = assumptions(plans)
    if assumed:
        notes.append(f"Of the rivals, taken for granted: {assumed}.")
    if estimated:
        notes.append(f"Without its tokenizer the length of the prompt is estimated for {' and '.join(estimated)}.")
    return TableView("Instances and operations", columns, rows, notes)


def petaflop(flops: float) -> str:
    """Operations in PFLOP with three digits, whole from a thousand on."""
    return f"{flops / 1e15:,.0f}" if flops >= 1e18 else f"{flops / 1e15:,.3g}"


def assumptions(plans: dict[str, Any]) -> str:
    """What the counts of the rivals take for granted: what is of all data sets first; empty where there are none."""
    found = {
        data: dict.fromkeys(
            words for name in RIVALS for words in by_llm["llama2_13b"].get(f"{name}_epoch", {}).get("assumptions", ())
        )
        for data, by_llm in plans.items()
    }
    everywhere = [words for words in next(iter(found.values()), ()) if all(words in each for each in found.values())]
    texts = ["; ".join(everywhere)] if everywhere else []
    for data, each in found.items():
        if own := [words for words in each if words not in everywhere]:
            texts.append(f"{choice_title('data', data)}: {'; '.join(own)}")
    return ". ".join(texts)


def spent_table(rows: Sequence[Row]) -> TableView:
    """Time and memory that the stages with a language model took in the cells' runs."""
    lines: list[list[TableCell | str]] = []
    for row in rows:
        for cell in row.cells:
            for stage in (each.name for each in STAGES if each.runs_llm):
                if (facts := cell.content["stages"].get(stage)) is None:
                    continue
                where = (cell.name,)
                lines.append(
                    [
                        f"{row.data_title}, {row.backbone_title}, {row.method_title}, seed {cell.seed}",
                        stage,
                        TableCell(f"{facts['wall_seconds']:,.0f}", facts["machine"]["processor"], where),
                        TableCell(f"{facts['peak_memory_gib']:.2f}", sources=where),
                        str(cell.content["threads"]),
                    ]
                )
    notes = ["Wall times of whole stages within the cells, other work on the machine included."]
    return TableView("Spent in the cells", ["", "stage", "wall s", "peak GiB", "threads"], lines, notes)
