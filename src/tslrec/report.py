"""The closing table of a run: what a person sees, drawn from the manifests alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from tslrec.artifacts import Artifact
from tslrec.choices import choice_title
from tslrec.recipes import run_key

METRICS = ("HR@5", "HR@10", "NDCG@5", "NDCG@10")
PROTOCOLS = {"masked": "masked", "unmasked": "not masked"}


@dataclass(frozen=True)
class MethodResult:
    """What one method reached on one data set, with the artifacts that say so."""

    method: str
    data: str
    model: str
    source_model: str
    preset: str
    seed: int
    llm: str | None
    stages: Mapping[str, Artifact]
    config: Mapping[str, Any]

    @property
    def metrics(self) -> Mapping[str, Any]:
        """The metrics of the last stage."""
        return list(self.stages.values())[-1].metrics

    @property
    def key(self) -> str:
        """Tells runs with other settings apart."""
        return run_key(artifact.key for artifact in self.stages.values())

    def as_json(self) -> dict[str, Any]:
        return {
            "method": self.method,
            "data": self.data,
            "model": self.model,
            "source_model": self.source_model,
            "preset": self.preset,
            "seed": self.seed,
            "llm": self.llm,
            "metrics": dict(self.metrics),
            "stages": {
                name: {
                    "folder": str(artifact.folder),
                    "key": artifact.key,
                    "wall_seconds": artifact.manifest["wall_seconds"],
                    "peak_memory_gib": artifact.manifest["peak_memory_gib"],
                    "metrics": dict(artifact.metrics),
                }
                for name, artifact in self.stages.items()
            },
            "config": dict(self.config),
        }


def print_report(results: Sequence[MethodResult], folder: Path, console: Console) -> None:
    """Prints the table of methods under both ranking protocols, what was recovered, what it cost, and where it is."""
    last = results[-1]
    console.print()
    console.print(ranking_table(results))
    if last.config["training"]["test_users"] is not None:
        console.print(f"Tested on {last.metrics['test/users']:,} users drawn at random", highlight=False)
    for line in recovered(results):
        console.print(line, highlight=False)
    if last.llm is not None:
        console.print(f"Language model: {last.llm}", highlight=False)
    console.print(cost_table(results))
    console.print(f"Result: {folder / 'result.json'}", highlight=False, soft_wrap=True)


def ranking_table(results: Sequence[MethodResult]) -> Table:
    """Test metrics; each protocol is a block of its own, never mixed."""
    last = results[-1]
    source = "" if last.source_model == last.model else f", preferences from {last.source_model}"
    table = Table(
        title=f"{last.data} · {last.model}{source} · preset {last.preset} · seed {last.seed}",
        title_justify="left",
    )
    table.add_column("protocol")
    table.add_column("method")
    for name in METRICS:
        table.add_column(name, justify="right")
    table.add_column("best epoch", justify="right")
    for protocol, title in PROTOCOLS.items():
        for position, result in enumerate(results):
            values = [f"{result.metrics[f'test/{protocol}/{name}']:.4f}" for name in METRICS]
            best = f"{result.metrics['best_epoch'] + 1} of {result.metrics['epochs']}"
            table.add_row(title if position == 0 else "", choice_title("method", result.method), *values, best)
        table.add_section()
    return table


def recovered(results: Sequence[MethodResult]) -> list[str]:
    """How much of the truth was found, where the data were generated and it is known, and how the LLM agreed."""
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
    """Wall time and peak memory of each distinct stage result."""
    table = Table(title="Stages", title_justify="left")
    for heading in ("stage", "wall s", "peak GiB", ""):
        table.add_column(heading, justify="left" if heading in ("stage", "") else "right")
    table.add_column("folder", overflow="fold")
    seen: set[str] = set()
    for result in results:
        for name, artifact in result.stages.items():
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
