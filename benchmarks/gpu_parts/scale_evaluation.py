"""The step `evaluation` of the part `scale`: ranks among a million items.

Shapes: B users, I items (row 0 of the table is padding), D size of a user vector, S (user, item) pairs of histories.
"""

from __future__ import annotations

from gpu_parts.bench import Bench
from gpu_parts.scale_market import MEAN_LENGTH, sizes

EVALUATED_USERS = 4096


def evaluation(bench: Bench) -> None:
    """Ranks of targets among a million items, for some thousand users with their histories."""
    import torch

    from tslrec.evaluation.ranking import target_ranks

    num_items, users = sizes(bench)[1], bench.sized(EVALUATED_USERS, 20)
    torch.manual_seed(0)
    user_BD = torch.randn(users, 64, device=bench.device)
    table_ID = torch.randn(num_items + 1, 64, device=bench.device)
    targets_B = torch.randint(1, num_items + 1, (users,), device=bench.device)
    seen_rows_S = torch.arange(users, device=bench.device).repeat_interleave(MEAN_LENGTH)
    seen_items_S = torch.randint(1, num_items + 1, (len(seen_rows_S),), device=bench.device)

    def work() -> None:
        target_ranks(user_BD, table_ID, targets_B, seen_rows_S, seen_items_S)

    with bench.peak_memory() as peak:
        work()
        bench.synchronize()
    seconds = bench.seconds(work, repeats=bench.sized(4, 1), warm_up=bench.sized(1, 0))
    bench.figure("users", users / seconds, "users/s")
    rate = 2 * users * num_items * 64 / seconds / 1e12
    bench.figure("share", 100 * rate / bench.product_rate("float32"), "%")
    bench.figure("peak", peak["card"], "GiB")
