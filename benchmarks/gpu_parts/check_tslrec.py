"""All five stages on the card, what came out beside the CPU's, and the recommender that is loaded from it."""

from __future__ import annotations

from pathlib import Path

from gpu_parts.bench import Bench, NotMeasuredError
from gpu_parts.check_runs import SMALL, Chain, result_of, run_all, run_folder_of, scratch, trainer_of

QUICKSTART = ("method=tslrec", "data=synthetic", "llm=tiny", "preset=quickstart", "training.max_epochs=10")
"""The quickstart with a tiny random language model, fewer epochs, and without the methods that it is compared with."""

METRICS = ("HR@10", "NDCG@10")

LEAST_EQUAL = 0.99
"""Share of users whose rank on the CPU must be the card's. Scores differ in their last bits, so near ties may swap."""


def check_tslrec(bench: Bench) -> None:
    """Trains on the card and on the CPU by the same seed; metrics differ by the order of sums and by dropout masks."""
    folder = scratch(bench, "tslrec")
    common = (*QUICKSTART, *bench.sized((), SMALL))
    run_all(bench, [Chain("card", (*common, trainer_of(bench))), Chain("cpu", (*common, "trainer=cpu"))], folder)
    here, there = result_of(folder / "card"), result_of(folder / "cpu")
    for name in METRICS:
        key = f"test/masked/{name}"
        bench.figure(name.lower().replace("@", "_at_"), here["metrics"][key], "1", cpu=round(there["metrics"][key], 4))
    for stage, facts in here["stages"].items():
        seconds = there["stages"][stage]["wall_seconds"]
        bench.figure(f"seconds_{stage.replace('/', '_')}", facts["wall_seconds"], "s", cpu=seconds)
    share = "explained_share"
    bench.figure(
        share, here["stages"]["sft"]["metrics"][share], "1", cpu=round(there["stages"]["sft"]["metrics"][share], 4)
    )


def check_recommender(bench: Bench) -> None:
    """Loads the card's recommender on the CPU, and computes every test user's rank again.

    Raises:
        NotMeasuredError: without the run of the step `tslrec`.
        RuntimeError: if too many ranks differ.
    """
    import tslrec
    from tslrec.serving.run_folder import open_run
    from tslrec.serving.verification import verify_ranks

    trained = bench.folder / "check" / "tslrec" / "card"
    if not list((trained / "artifacts" / "runs").glob("*/result.json")):
        raise NotMeasuredError("the step tslrec has left no run; run it first")
    folder: Path = run_folder_of(trained)
    recommender, recorded = tslrec.load(folder), open_run(folder)
    batch_size = recorded.config.training.eval_batch_size
    compared = verify_ranks(recommender.engine, recorded.interactions(), recorded.last[1], batch_size)
    for each in compared:
        bench.figure(f"{each.protocol}_ranks_equal", 100 * each.equal / each.users, "%", aim=100.0)
    if any(each.equal < LEAST_EQUAL * each.users for each in compared):
        raise RuntimeError(f"less than {LEAST_EQUAL:.0%} of the ranks are those that the run recorded")
