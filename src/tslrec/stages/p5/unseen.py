"""P5's second test: the users are asked by a template that no training text has."""

from __future__ import annotations

from typing import Any

import lightning

from tslrec.data.batching import Batches
from tslrec.evaluation.hooks import RankingHooks
from tslrec.evaluation.user_ranks import UserRanks


def ask_unseen(trainer: lightning.Trainer, module: RankingHooks, users: Batches[Any]) -> dict[str, float]:
    """The test by the unseen template.

    Args:
        trainer: of the training.
        module: with the best weights. Its ranks are those of this test afterwards.
        users: the users of the test, asked by the unseen template.

    Returns:
        The test's metrics, named `unseen/…`.
    """
    # The logs and the tracker hold one test, by the seen template.
    loggers, trainer.loggers = trainer.loggers, []
    module.test_ranks = UserRanks()
    tested = trainer.test(module, dataloaders=users, verbose=False)[0]
    trainer.loggers = loggers
    found = {name.removeprefix("test/"): value for name, value in tested.items()}
    return {f"unseen/{name}": value for name, value in found.items() if name != "list_length"}
