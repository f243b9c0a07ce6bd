"""Our side of `peers.py`: `Recommender.recommend`, from a frame of raw ids to a frame of raw ids, on PyTorch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from importlib.metadata import version

import polars as pl
import torch

from measure import print_record
from peer_case import CASE, History, K, parse, read_histories, side_record
from side_tslrec import model_section
from tslrec.models.item_embedding import IdEmbedding
from tslrec.serving.catalogue import Catalogue
from tslrec.serving.recommender import Recommender
from tslrec.serving.torch_engine import TorchEngine
from tslrec.stages.building import build_backbone
from tslrec.stages.restored import of_backbone


def main() -> None:
    words = parse(__doc__)
    torch.manual_seed(0)
    histories = read_histories(words.file)
    # The last items are in the catalogue too, as they are in the other sides' data sets.
    counts = Counter(item for line in words.file.read_text(encoding="utf-8").splitlines() for item in line.split()[1:])
    items = pl.DataFrame(
        {
            "raw_id": ["", *counts],
            "title": pl.Series([None] * (1 + len(counts)), dtype=pl.String),
            "count": [0, *counts.values()],
        }
    )
    backbone = build_backbone(
        model_section(CASE), IdEmbedding(len(counts), CASE.hidden_size), num_users=1, max_len=CASE.max_len
    )
    parameters = sum(parameter.numel() for parameter in backbone.parameters())
    restored = of_backbone(backbone, backbone.item_embedding.table().detach().clone())
    recommender = Recommender(TorchEngine(restored), Catalogue(items), {})
    asking = histories[: words.users]
    frame = pl.DataFrame({"user": [each.user for each in asking], "items": [each.items for each in asking]})

    def recommend(users: Sequence[History]) -> int:
        return len(recommender.recommend(frame.head(len(users)), K, filter_seen=True))

    print_record(
        side_record(
            recommend,
            asking,
            words,
            parameters=parameters,
            threads=torch.get_num_threads(),
            versions={name: version(name) for name in ("torch", "polars", "numpy")},
        )
    )


if __name__ == "__main__":
    main()
