"""The sum of the scores of several recommenders, as one recommender. Nothing is trained but the members' weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tslrec.evaluation.user_ranks import save_ranks
from tslrec.settings.metrics import SELECTING_METRIC
from tslrec.stages.context import StageContext
from tslrec.stages.ensemble.combining import combined
from tslrec.stages.ensemble.restored import voices_of
from tslrec.stages.ensemble.search import Trial, Weights, normalised, search
from tslrec.stages.ensemble.trials import Trials
from tslrec.stages.evaluating import evaluate_restored
from tslrec.stages.members import Member
from tslrec.stages.outputs import ENSEMBLE
from tslrec.system.files import write_json


def run(context: StageContext) -> dict[str, Any]:
    """Finds the members' weights by validation, unless they are given, and tests their sum once.

    Writes `ensemble.json` (the members' words, their weights with the sum 1, and each weighting that was tried with its
    validation NDCG@10 under the protocol of `training.selection`) and `ranks.safetensors`.

    Returns:
        `validation/…` and `test/…` of both ranking protocols, and how many users they are of; `weight/1` and so on, the
        members' weights; `member/1` and so on, each member's own validation NDCG@10 under the selecting protocol; and
        `trials`, the weightings that were tried.

    Raises:
        UserError: if a member cannot be rebuilt, or a score is not finite.
    """
    config = context.config
    voices = voices_of(context.members, context.interactions, config.ensemble.scores)
    measured = Trials(voices, context.interactions, config)
    if config.ensemble.weights is None:
        best, trials = search(len(voices), measured.measure)
    else:
        best, trials = given_weights(config.ensemble.weights, measured)
    write_json(context.folder / ENSEMBLE, record(best.weights, trials, context.members, config.training.selection))
    # What the trials hold is no longer needed.
    del measured
    restored = combined(voices, best.weights)
    validated, _ = evaluate_restored(restored, context.interactions, config, "validation")
    tested, ranks = evaluate_restored(restored, context.interactions, config, "test")
    save_ranks(ranks, context.folder)
    alone = {trial.weights.index(1.0) + 1: trial.value for trial in trials if 1.0 in trial.weights}
    return {
        **validated,
        **tested,
        **{f"weight/{number}": weight for number, weight in enumerate(best.weights, 1)},
        **{f"member/{number}": alone[number] for number in sorted(alone)},
        "trials": len(trials),
    }


def given_weights(weights: Sequence[float], measured: Trials) -> tuple[Trial, list[Trial]]:
    """The trial of given weights, and that with those of each member alone.

    Args:
        weights: of the members, of which only the ratios count.
        measured: measures weightings.
    """
    alone = [tuple(float(member == other) for other in range(len(weights))) for member in range(len(weights))]
    tried = list(dict.fromkeys([normalised(weights), *alone]))
    trials = [Trial(*each) for each in zip(tried, measured.measure(tried), strict=True)]
    return trials[0], trials


def record(weights: Weights, trials: Sequence[Trial], members: Sequence[Member], selection: str) -> dict[str, Any]:
    """The content of `ensemble.json`.

    Args:
        weights: the chosen ones.
        trials: all weightings that were tried.
        members: the members.
        selection: the ranking protocol of the trials' values.
    """
    return {
        "members": [member.words for member in members],
        "weights": list(weights),
        "selected_by": f"validation/{selection}/{SELECTING_METRIC}",
        "trials": [{"weights": list(trial.weights), "value": trial.value} for trial in trials],
    }
