"""From records to tables and to one line per figure."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from cases import Case
from growth import exponent

Records = dict[str, dict[str, dict[str, Any]]]
"""By case, then by side."""
Figure = tuple[str, float, str]

MEASURES = (
    ("epoch", "epoch_seconds", "s"),
    ("epoch_mean", "epoch_seconds_mean", "s"),
    ("whole_epoch", "control_seconds", "s"),
    ("evaluation", "evaluation_seconds", "s"),
    ("training_peak", "training_peak_gib", "GiB"),
    ("evaluation_peak", "evaluation_peak_gib", "GiB"),
)
PER_ROUND = ("epoch_seconds", "epoch_seconds_mean", "evaluation_seconds")
"""What later rounds measure again; memory does not drift."""
COMPARED = ("epoch", "whole_epoch", "evaluation", "training_peak", "evaluation_peak")
GROWN = ("epoch", "evaluation", "training_peak", "evaluation_peak")


def of_rounds(rounds: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """One record of a side's rounds: the first, with the median of what all of them measured, and theirs beside it."""
    measured = {key: [record[key] for record in rounds] for key in PER_ROUND}
    return {**rounds[0], **{key: statistics.median(values) for key, values in measured.items()}, "rounds": measured}


def ratio(theirs: dict[str, Any], ours: dict[str, Any], key: str) -> float:
    """Another side's figure over ours: the median over the rounds that both have, where it is measured in each."""
    pairs = zip(theirs["rounds"][key], ours["rounds"][key], strict=False) if key in PER_ROUND else []
    return statistics.median([a / b for a, b in pairs] or [theirs[key] / ours[key]])


def suffix(side: str) -> str:
    """What the name of a side's ratio ends with: nothing for RecBole, `_anomaly`, `_rectools`."""
    return side.removeprefix("recbole") if side.startswith("recbole") else f"_{side}"


def figures(records: Records, cases: Sequence[Case], gflops: float) -> list[Figure]:
    """Every figure there is a record for; a ratio is another side's over ours."""
    lines: list[Figure] = [("matrix_product_speed", rounded(gflops), "GFLOP/s")]
    for case in cases:
        sides = records[case.name]
        ours = sides.get("tslrec")
        for side, record in sides.items():
            lines += [
                (f"{case.name}_{measure}_{side}", rounded(record[key]), unit)
                for measure, key, unit in MEASURES
                if record[key] is not None
            ]
            if side != "tslrec" and ours is not None:
                lines += [
                    (f"{case.name}_{measure}_ratio{suffix(side)}", rounded(ratio(record, ours, key)), "x")
                    for measure, key, _ in MEASURES
                    if measure in COMPARED and record[key] is not None and ours[key] is not None
                ]
        if ours is not None:
            floor = ours["epoch_flops"] / gflops / 1e9
            lines.append((f"{case.name}_epoch_floor", rounded(floor), "s"))
            lines.append((f"{case.name}_epoch_floor_share", rounded(100 * floor / ours["epoch_seconds"]), "%"))
    scales, grown = growth(records, cases)
    if len(scales) > 1:
        keys = {measure: key for measure, key, _ in MEASURES}
        for measure in GROWN:
            power = exponent(scales, [record[keys[measure]] for record in grown])
            lines.append((f"growth_{measure}_exponent", rounded(power), "power"))
    return lines


def growth(records: Records, cases: Sequence[Case]) -> tuple[list[float], list[dict[str, Any]]]:
    """The scales of the generated market that were measured, and their records."""
    found = [
        (float(case.data.removeprefix("growth_")), records[case.name]["tslrec"])
        for case in cases
        if case.data.startswith("growth_") and "tslrec" in records[case.name]
    ]
    return [scale for scale, _ in found], [record for _, record in found]


def tables(records: Records, cases: Sequence[Case], gflops: float) -> str:
    """What a person reads: each case's sides below each other, then growth."""
    lines = [
        f"Large fp32 matrix products reach {gflops:.1f} GFLOP/s here. Epoch: the median batch's seconds per target,",
        "times the epoch's targets (mean: all seconds over all targets); whole: an epoch run from end to end.",
        "Memory: peak above what the imports take. Floor: matrix products alone, at that speed.",
        "",
        f"{'case':20} {'side':16} {'epoch s':>9} {'mean s':>9} {'whole s':>9} {'eval s':>8} {'train GiB':>9} "
        f"{'eval GiB':>9} {'floor s':>8} {'reached':>8}",
    ]
    for case in cases:
        sides = records[case.name]
        for side, record in sides.items():
            whole = record["control_seconds"]
            floor, share = "", ""
            if side == "tslrec":
                seconds = record["epoch_flops"] / gflops / 1e9
                floor, share = f"{seconds:.2f}", f"{seconds / record['epoch_seconds']:.0%}"
            lines.append(
                f"{case.name:20} {side:16} {record['epoch_seconds']:9.2f} {record['epoch_seconds_mean']:9.2f} "
                f"{'–' if whole is None else format(whole, '.2f'):>9} {record['evaluation_seconds']:8.2f} "
                f"{record['training_peak_gib']:9.3f} {record['evaluation_peak_gib']:9.3f} {floor:>8} {share:>8}"
            )
        lines += [f"{'':20} {side}: no whole epoch: {why}" for side, why in omitted(sides)]
        lines += [f"{'':20} {side}: {text}" for side, text in own_epochs(sides)]
        for side in [side for side in ("recbole", "rectools") if {"tslrec", side} <= sides.keys()]:
            epoch, evaluation, training, evaluating = (
                ratio(sides[side], sides["tslrec"], key)
                for key in ("epoch_seconds", "evaluation_seconds", "training_peak_gib", "evaluation_peak_gib")
            )
            name = f"ratio{suffix(side)}"
            lines.append(
                f"{'':20} {name:16} {epoch:8.1f}x {'':19} {evaluation:7.1f}x {training:8.1f}x {evaluating:8.1f}x"
            )
    scales, grown = growth(records, cases)
    if len(scales) > 1:
        lines += [
            "",
            "Growth with users and items together (the softmax over all items is users times items: power 2):",
        ]
        lines += [
            f"{measure:16} grows with power {exponent(scales, [record[key] for record in grown]):.2f}"
            for measure, key, _ in MEASURES
            if measure in GROWN
        ]
    return "\n".join(lines)


def omitted(sides: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    """Sides whose whole epoch was left out, and why."""
    return [(side, record["why_no_epoch"]) for side, record in sides.items() if record["control_seconds"] is None]


def own_epochs(sides: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    """Sides whose own epoch has other targets than the case, and how that was dealt with."""
    return [
        (side, f"its epoch has {record['own_targets']:,} of {record['targets']:,} targets; seconds are of all of them")
        for side, record in sides.items()
        if record.get("own_targets", record["targets"]) != record["targets"]
    ]


def rounded(value: float) -> float:
    """Four significant digits: more is noise."""
    return float(f"{value:.4g}")
