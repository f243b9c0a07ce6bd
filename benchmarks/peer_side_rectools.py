"""RecTools' side of `peers.py`: `SASRecModel.recommend`, from raw user ids to a frame of raw ids.

Its data set is built before the clock starts, though ours reads the histories within it. Its own layers have a
feed-forward part as wide as the model; the pre-norm layers, one of its options, have the width of the other sides.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version

import pandas as pd
import torch
from rectools import Columns
from rectools.dataset import Dataset
from rectools.models import SASRecModel
from rectools.models.nn.transformers.net_blocks import PreLNTransformerLayers

from cases import SIZES
from measure import print_record
from peer_case import CASE, History, K, parse, read_histories, side_record


def main() -> None:
    words = parse(__doc__)
    torch.manual_seed(0)
    histories = read_histories(words.file)
    dataset = Dataset.construct(interactions(histories))
    sizes = SIZES[CASE.model]
    model = SASRecModel(
        n_blocks=sizes["num_layers"],
        n_heads=sizes["num_heads"],
        n_factors=CASE.hidden_size,
        session_max_len=CASE.max_len,
        dropout_rate=CASE.dropout,
        transformer_layers_type=PreLNTransformerLayers,
        transformer_layers_kwargs={"ff_factors_multiplier": sizes["inner_size"] // CASE.hidden_size},
        # It builds the model and trains nothing.
        epochs=0,
        recommend_torch_device="cpu",
    )
    model.fit(dataset)

    def recommend(users: Sequence[History]) -> int:
        return len(model.recommend([each.user for each in users], dataset, k=K, filter_viewed=True))

    print_record(
        side_record(
            recommend,
            histories[: words.users],
            words,
            parameters=sum(parameter.numel() for parameter in model.torch_model.parameters()),
            threads=torch.get_num_threads(),
            versions={name: version(name) for name in ("rectools", "torch", "numpy")},
        )
    )


def interactions(histories: Sequence[History]) -> pd.DataFrame:
    """A row per interaction; its time is its place in the user's history."""
    rows = [(each.user, item, place) for each in histories for place, item in enumerate(each.items)]
    frame = pd.DataFrame(rows, columns=[Columns.User, Columns.Item, Columns.Datetime])
    frame[Columns.Datetime] = pd.to_datetime(frame[Columns.Datetime], unit="s")
    return frame.assign(**{Columns.Weight: 1.0})


if __name__ == "__main__":
    main()
