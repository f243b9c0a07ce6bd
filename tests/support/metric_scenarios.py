"""All metrics of 101 users, whom two processes share unevenly: `python metric_scenarios.py FOLDER`, in each of two."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch

from tslrec.evaluation.chosen_metrics import RankingMetrics
from tslrec.evaluation.metrics import METRICS_BY_NAME
from tslrec.evaluation.ranking import target_ranks, top_lists
from tslrec.system.exits import run_program

NUM_USERS, NUM_ITEMS = 101, 37
NAMES = [f"{name}@{k}" for name in METRICS_BY_NAME for k in (1, 5)]


def metrics_of(rank: int, world_size: int) -> dict[str, float]:
    """The metrics over all processes; this one counts every `world_size`-th user, in batches of 8."""
    draw = torch.Generator().manual_seed(0)
    # Small whole numbers: products are exact, and there are many ties.
    users = torch.randint(-2, 3, (NUM_USERS, 3), generator=draw).float()
    table = torch.randint(-2, 3, (NUM_ITEMS + 1, 3), generator=draw).float()
    targets = torch.randint(1, NUM_ITEMS + 1, (NUM_USERS,), generator=draw)
    history = torch.randint(1, NUM_ITEMS + 1, (NUM_USERS, 4), generator=draw)
    metrics = RankingMetrics(NAMES, torch.arange(NUM_ITEMS + 1))
    for mine in torch.arange(NUM_USERS)[rank::world_size].split(8):
        seen = torch.arange(len(mine)).repeat_interleave(4), history[mine].flatten()
        metrics.update(*target_ranks(users[mine], table, targets[mine], *seen))
        metrics.update_lists(*top_lists(users[mine], table, metrics.list_length, *seen))
    return metrics.compute()


def main(folder: Path) -> None:
    """Writes what each process computed: `0.json` and `1.json`."""
    rank, world_size = int(os.environ["LOCAL_RANK"]), int(os.environ["WORLD_SIZE"])
    torch.distributed.init_process_group("gloo", rank=rank, world_size=world_size)
    (folder / f"{rank}.json").write_text(json.dumps(metrics_of(rank, world_size)))


if __name__ == "__main__":
    run_program(lambda: main(Path(sys.argv[1])))
