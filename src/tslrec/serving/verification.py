"""Computes each test user's rank again with a loaded recommender, and compares it with what the run recorded.

Shapes: T tested users, B users of a batch, S (user, item) pairs of histories.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tslrec.data.interactions import TEST, Interactions
from tslrec.evaluation.chosen_metrics import parse_metric
from tslrec.evaluation.generated_lists import list_ranks
from tslrec.evaluation.protocols import METRICS, PROTOCOLS
from tslrec.evaluation.ranking import target_ranks
from tslrec.evaluation.reranking import reranked_ranks
from tslrec.evaluation.user_ranks import RANKS
from tslrec.serving.engine import Batch, Engine, Ids
from tslrec.serving.histories import Histories
from tslrec.serving.list_engine import ListEngine
from tslrec.serving.run_histories import histories_of
from tslrec.serving.torch_engine import TorchEngine
from tslrec.system.errors import UserError
from tslrec.system.safetensors_io import load_arrays

NONE_SEEN = np.zeros(0, dtype=np.int64)
"""Rows or items of no history."""


@dataclass(frozen=True)
class Comparison:
    """Ranks of one protocol, computed again.

    Attributes:
        protocol: `masked` or `unmasked`.
        users: number of tested users.
        equal: number of users whose rank is the recorded one.
        metrics: HR and NDCG of the ranks computed again.
    """

    protocol: str
    users: int
    equal: int
    metrics: dict[str, float]


def require_same_result(facts: Mapping[str, Any], recorded: Mapping[str, Any], where: Path) -> None:
    """Refuses a recommender that is not of the run's own results: its ranks would say nothing about the run.

    Args:
        facts: the recommender's.
        recorded: `FinishedRun.facts` of the run that it is compared with.
        where: the recommender's folder, for the message.

    Raises:
        UserError: naming the run that the recommender is of.
    """
    if any(facts.get(name) != recorded[name] for name in ("keys", "data_key")):
        raise UserError(
            f"{where}: made from {facts.get('method')} of the run {facts.get('run')}, and not from "
            f"{recorded['method']} of {recorded['run']}; give --run that run, and --method that method"
        )


def verify_ranks(engine: Engine, interactions: Interactions, recorded: Path, batch_size: int) -> list[Comparison]:
    """Ranks every tested user's last item by a recommender, under both protocols.

    Args:
        engine: of the recommender.
        interactions: the run's data set.
        recorded: the artifact with the ranks of the run's test (`ranks.safetensors`).
        batch_size: users that are computed together; the run's `training.eval_batch_size` gives the same last bits.

    Raises:
        UserError: if no ranks were recorded.
    """
    if not (recorded / RANKS).is_file():
        raise UserError(f"{recorded / RANKS}: missing, so there is nothing to compare with; train again")
    known = load_arrays(recorded / RANKS)
    found = ranks_of(engine, interactions, known["users"], batch_size)
    return [
        Comparison(
            protocol,
            len(known["users"]),
            int((found[protocol].astype(np.float32) == known[protocol]).sum()),
            {name: mean_of(name, torch.from_numpy(found[protocol])) for name in METRICS},
        )
        for protocol in PROTOCOLS
    ]


def mean_of(name: str, ranks_T: Tensor) -> float:
    """A metric of ranks, such as `NDCG@10`."""
    kind, k = parse_metric(name)
    metric = kind(k)
    metric.update(ranks_T)
    return float(metric.compute())


def ranks_of(
    engine: Engine, interactions: Interactions, users_T: Ids, batch_size: int
) -> dict[str, NDArray[np.float64]]:
    """The rank of each user's last item, from 1, by protocol (see `tslrec.evaluation.ranking.target_ranks`).

    Args:
        engine: see `verify_ranks`.
        interactions: see `verify_ranks`.
        users_T: rows of the users in the data set.
        batch_size: see `verify_ranks`.
    """
    histories = histories_of(interactions, users_T, leave_out=TEST)
    targets_T = interactions.items[interactions.offsets[users_T + 1] - TEST].astype(np.int64)
    if isinstance(engine, ListEngine):
        return ranks_in_generated_lists(engine, histories, targets_T, batch_size)
    table_IE = torch.from_numpy(engine.item_vectors())
    found = {protocol: np.zeros(len(users_T)) for protocol in PROTOCOLS}
    for places_B, batch in histories.batches(engine.max_len, batch_size, filter_seen=True):
        ranks = target_ranks(
            torch.from_numpy(engine.user_vectors(batch)),
            table_IE,
            *(torch.from_numpy(each) for each in (targets_T[places_B], batch.seen_rows_S, batch.seen_items_S)),
        )
        for protocol, ranks_B in zip(PROTOCOLS, ranks, strict=True):
            seen = batch if protocol == "masked" else batch._replace(seen_rows_S=NONE_SEEN, seen_items_S=NONE_SEEN)
            found[protocol][places_B] = after_reranking(engine, seen, targets_T[places_B], ranks_B).numpy()
    return found


def ranks_in_generated_lists(
    engine: ListEngine, histories: Histories, targets_T: Ids, batch_size: int
) -> dict[str, NDArray[np.float64]]:
    """The place of each user's last item in the list that is generated for that user, by protocol.

    Args:
        engine: of the recommender.
        histories: of the tested users.
        targets_T: the items to find.
        batch_size: see `verify_ranks`.
    """
    found = {protocol: np.zeros(len(targets_T)) for protocol in PROTOCOLS}
    for protocol in PROTOCOLS:
        for places_B, batch in histories.batches(engine.max_len, batch_size, filter_seen=protocol == "masked"):
            lists_BK, _ = engine.best_items(batch, engine.generator.length, None)
            found[protocol][places_B] = list_ranks(lists_BK, targets_T[places_B])
    return found


def after_reranking(engine: Engine, batch: Batch, targets_B: Ids, ranks_B: Tensor) -> Tensor:
    """The ranks where a model reranks the first items of a list (`reranked_ranks`); of other engines as they are.

    Args:
        engine: see `verify_ranks`.
        batch: of users, with what must not be recommended.
        targets_B: item ids.
        ranks_B: the targets' ranks by score.
    """
    reranker = engine.restored.reranker if isinstance(engine, TorchEngine) else None
    if reranker is None:
        return ranks_B
    lists_BK, _ = engine.best_items(batch, min(reranker.count, engine.num_items), None)
    return reranked_ranks(torch.from_numpy(lists_BK), reranker.count, torch.from_numpy(targets_B), ranks_B)
