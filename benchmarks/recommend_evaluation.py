"""Times recommendations for all users of a run beside a full evaluation: `recommend.py evaluation`.

Shapes: B users, L positions, I items (row 0 is padding), E size of a user vector.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from recommend_figures import Figures
from tslrec.system.memory import keep_freed_memory

K = 10
"""Items for each user."""


def measure_evaluation(model: Path, method: str | None, figures: Figures, *, rounds: int) -> None:
    """All users of a run recommended to, and a full test, in turn."""
    import torch

    import tslrec
    from tslrec.data.datamodule import SequenceDataModule
    from tslrec.evaluation.ranking import target_ranks
    from tslrec.serving.run_folder import open_run
    from tslrec.serving.streaming.plan import Request
    from tslrec.serving.streaming.sources import DatasetUsers
    from tslrec.serving.streaming.stream import recommend_to_file
    from tslrec.stages.restored import Restored

    keep_freed_memory()
    run = open_run(model, method)
    interactions = run.interactions()
    restored, recommender = run.restore(interactions), tslrec.load(model, method=method)
    assert isinstance(restored, Restored)
    training = run.config.training
    data = SequenceDataModule(
        interactions,
        max_len=restored.max_len,
        batch_size=training.batch_size,
        eval_batch_size=training.eval_batch_size,
        all_positions=False,
        seed=0,
    )

    def evaluate() -> int:
        with torch.inference_mode():
            for batch in data.test_dataloader():
                user_BE = restored.encode(batch.items_BL, batch.lengths_B)
                assert batch.seen_rows is not None
                assert batch.seen_items is not None
                target_ranks(user_BE, restored.output_IE, batch.targets, batch.seen_rows, batch.seen_items)
        return len(data.tested)

    def recommend() -> int:
        with tempfile.TemporaryDirectory() as name:
            out = Path(name) / "recs.parquet"
            totals = recommend_to_file(recommender, DatasetUsers(interactions), Request(k=K), out)
            assert totals is not None
            return totals.users

    figures.add("threads", torch.get_num_threads(), "count")
    timed: dict[str, list[float]] = {"evaluation": [], "recommend": []}
    sides: dict[str, Callable[[], int]] = {"evaluation": evaluate, "recommend": recommend}
    for turn in range(1 + rounds):
        for name, side in sides.items():
            began = time.perf_counter()
            users = side()
            # The first turn warms up.
            if turn:
                timed[name].append(time.perf_counter() - began)
            else:
                figures.add(f"{name}/users", users, "count")
    medians = {name: statistics.median(seconds) for name, seconds in timed.items()}
    for name, seconds in timed.items():
        figures.add(f"{name}/seconds", medians[name], "s")
        figures.add(f"{name}/seconds_fastest", min(seconds), "s")
    figures.add("recommend/times_an_evaluation", medians["recommend"] / medians["evaluation"], "times")
