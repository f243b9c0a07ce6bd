"""What a run prints at its end, from the manifests alone: test metrics, and the time and memory of each stage."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tslrec.evaluation.protocols import LIST_NOTE, METRICS, PROTOCOLS
from tslrec.pipeline.artifacts import Artifact
from tslrec.pipeline.result_names import method_title
from tslrec.pipeline.results import MethodResult
from tslrec.reports.reranking import reranking
from tslrec.reports.update import print_update
from tslrec.reports.whole_tables import print_table
from tslrec.stages.registry import generates_lists, trains_backbone

NOT_MEASURED = "–"

MOST_METRICS = 4
"""Metrics side by side in one table; more are shown in further tables, so that a terminal of 80 columns holds them."""


def print_closing_table(results: Sequence[MethodResult], folder: Path, console: Console) -> None:
    """Prints the test metrics of each method, how well preferences were learnt, the costs, and the result's path.

    Of a run that continues another one also what has changed.

    Args:
        results: of the methods of the run, the run's own last.
        folder: of the run, with `result.json`.
        console: on which it is printed.
    """
    last = results[-1]
    console.print()
    metrics = shown_metrics(results)
    for begin in range(0, len(metrics), MOST_METRICS):
        print_table(ranking_table(results, metrics[begin : begin + MOST_METRICS]), console)
    if any(generates_lists(result.stages) for result in results):
        console.print(LIST_NOTE)
    if last.config["training"]["test_users"] is not None and "test/users" in last.metrics:
        console.print(f"Tested on {last.metrics['test/users']:,} users drawn at random")
    for line in (*recovered(results), *reranking(results)):
        console.print(line)
    if last.llm is not None:
        console.print(f"Language model: {last.llm}")
    print_table(cost_table(results), console)
    print_update(results, console)
    console.print(f"Result: {folder / 'result.json'}", soft_wrap=True)


def shown_metrics(results: Sequence[MethodResult]) -> list[str]:
    """The configured metrics that any of the results has, in the configured order."""
    configured = results[-1].config.get("metrics", METRICS)
    names = {name: [f"test/{protocol}/{name}" for protocol in PROTOCOLS] for name in configured}
    return [name for name in names if any(key in result.metrics for result in results for key in names[name])]


def ranking_table(results: Sequence[MethodResult], metrics: Sequence[str]) -> Table:
    """A table of some of the test metrics, with a block of rows for each ranking protocol."""
    last = results[-1]
    names = [last.data, *trained_model(results), f"preset {last.preset}", f"seed {last.seed}"]
    table = Table(title=" · ".join(names), title_justify="left")
    table.add_column("protocol")
    table.add_column("method")
    for name in metrics:
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("best epoch", justify="right")
    for protocol, title in PROTOCOLS.items():
        for position, result in enumerate(results):
            values = [metric_text(result, f"test/{protocol}/{name}") for name in metrics]
            title_once = title if position == 0 else ""
            table.add_row(title_once, method_title(result.method, result.config), *values, best_epoch_text(result))
        table.add_section()
    return table


def trained_model(results: Sequence[MethodResult]) -> list[str]:
    """The backbone that some of the methods train, and that of stage 1 where it is another; nothing if none does."""
    if not any(trains_backbone(result.stages) for result in results):
        return []
    last = results[-1]
    return [last.model if last.source_model == last.model else f"{last.model}, preferences from {last.source_model}"]


def metric_text(result: MethodResult, name: str) -> str:
    """A metric of the last stage with four digits, or a dash if that stage does not measure it."""
    return f"{result.metrics[name]:.4f}" if name in result.metrics else NOT_MEASURED


def best_epoch_text(result: MethodResult) -> str:
    """The number of the best epoch, from 1, and of all epochs; a dash if the last stage trains nothing."""
    if "best_epoch" not in result.metrics:
        return NOT_MEASURED
    return f"{result.metrics['best_epoch'] + 1} of {result.metrics['epochs']}"


def recovered(results: Sequence[MethodResult]) -> list[str]:
    """Lines on the stages before the fusion, for each of them that ran.

    They say how well categories match the true ones (of generated data), how often the category that the LLM infers for
    an item is its cluster, and how much of the squared error the preference SFT explains.
    """
    stages: dict[str, Artifact] = {}
    for result in results:
        stages.update(result.stages)
    lines = []
    if "preferences" in stages and "ari_clusters" in stages["preferences"].metrics:
        ari = stages["preferences"].metrics["ari_clusters"]
        lines.append(f"Adjusted Rand index against the true categories: k-means clusters {ari:.3f}")
    if "augment" in stages:
        metrics = stages["augment"].metrics
        if lines and "ari_categories" in metrics:
            lines[0] += f", categories inferred by the LLM {metrics['ari_categories']:.3f}"
        shares = ", ".join(f"{case} {metrics[case]:.3f}" for case in ("C1", "C2", "C3"))
        lines.append(f"Inferred category against the cluster (same, in the top three, other): {shares}")
    if "sft" in stages:
        metrics = stages["sft"].metrics
        held_back = "validation/users" in metrics
        share = metrics["validation/explained_share" if held_back else "explained_share"]
        whose = f" on {metrics['validation/users']:,} held-back users" if held_back else ""
        lines.append(f"Preference SFT: {share:.1%} of the constant predictor's squared error explained{whose}")
    return lines


def cost_table(results: Sequence[MethodResult]) -> Table:
    """Wall time and peak memory of each distinct stage result, those of a run's members before its own."""
    table = Table(title="Stages", title_justify="left")
    for heading in ("stage", "wall s", "peak GiB", ""):
        table.add_column(heading, justify="left" if heading in ("stage", "") else "right")
    table.add_column("folder", overflow="fold")
    seen: set[str] = set()
    for result in results:
        of_members = [each for member in result.members for each in member.result.stages.items()]
        for name, artifact in (*of_members, *result.stages.items()):
            if artifact.key in seen:
                continue
            seen.add(artifact.key)
            manifest = artifact.manifest
            table.add_row(
                name,
                f"{manifest['wall_seconds']:.1f}",
                f"{manifest['peak_memory_gib']:.2f}",
                "reused" if artifact.reused else "computed",
                str(artifact.folder),
            )
    return table
