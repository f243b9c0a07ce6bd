"""RecBole's side of `peers.py`: `full_sort_topk`, as the page "Case study" of its documentation uses it.

Raw user ids become RecBole's, and the lists raw item ids again, by its data set. The users come in batches, for the
function keeps all scores of its users. It masks no history for a sequential model, so it does less than the others.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.metadata import version

import torch
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import init_seed
from recbole.utils.case_study import full_sort_topk

from measure import print_record
from peer_case import CASE, History, K, parse, read_histories, side_record
from side_recbole import SEED, settings


def main() -> None:
    words = parse(__doc__)
    # RecBole reads the command line too, and writes its logs into the working folder.
    del sys.argv[1:]
    os.chdir(words.folder)
    model_class, numbers = settings(CASE, words.folder)
    config = Config(model=model_class, dataset=CASE.data, config_dict=numbers)
    init_seed(SEED, config["reproducibility"])
    # RecBole's sequential models switch it on when they are imported.
    torch.autograd.set_detect_anomaly(False)
    dataset = create_dataset(config)
    train_data, _, test_data = data_preparation(config, dataset)
    model = model_class(config, train_data._dataset)

    def recommend(users: Sequence[History]) -> int:
        rows = 0
        for begin in range(0, len(users), CASE.recbole_eval_batch_size):
            names = [each.user for each in users[begin : begin + CASE.recbole_eval_batch_size]]
            uid_series = dataset.token2id(dataset.uid_field, names)
            _, found = full_sort_topk(uid_series, model, test_data, k=K, device=config["device"])
            rows += dataset.id2token(dataset.iid_field, found.cpu()).size
        return rows

    print_record(
        side_record(
            recommend,
            read_histories(words.file)[: words.users],
            words,
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            threads=torch.get_num_threads(),
            versions={name: version(name) for name in ("recbole", "torch", "numpy")},
        )
    )


if __name__ == "__main__":
    main()
