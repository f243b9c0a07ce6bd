"""Two processes (gloo on the CPU; NCCL goes the same way) compute what one does."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from safetensors.torch import load_file

from support.ddp_scenarios import SCENARIOS, Outcome
from support.processes import run_together


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], tuple[Outcome, Outcome]]:
    """A scenario's outcome by one process and by two; all of the latter run in one pair of processes."""
    folder = tmp_path_factory.mktemp("processes")
    run_together("ddp_scenarios.py", str(folder))

    def outcomes(name: str) -> tuple[Outcome, Outcome]:
        two = json.loads((folder / f"{name}.json").read_text()), load_file(folder / f"{name}.safetensors")
        return SCENARIOS[name](folder / "one" / name, 1), two

    return outcomes


Both = Callable[[str], tuple[Outcome, Outcome]]


@pytest.mark.parametrize(("scenario", "num_users"), [("uneven", 17), ("alone", 1), ("on_a_gpu", 17)])
def test_metrics_of_one_checkpoint_are_those_of_one_process(both: Both, scenario: str, num_users: int) -> None:
    (one, alone), (two, together) = both(scenario)
    assert len(one) == 16
    assert two == pytest.approx(one, rel=0, abs=1e-7)
    # Each user is counted once: nobody twice to fill a batch, nobody dropped.
    assert alone["evaluated"].tolist() == list(range(num_users))
    assert together["evaluated"].tolist() == list(range(num_users))
    for name in ("users", "masked", "unmasked"):
        assert together[name].tolist() == alone[name].tolist()
    assert alone["users"].tolist() == list(range(num_users))


@pytest.mark.parametrize("scenario", ["causal", "sampled", "taught", "prefix", "penalised"])
def test_training_gives_the_weights_of_one_process(both: Both, scenario: str) -> None:
    (one, weights), (two, shared_weights) = both(scenario)
    assert one["steps"] >= 9
    assert one["moved"] > 1e-3
    assert two == pytest.approx(one, rel=1e-5)
    # The same sums in float32, in another order.
    torch.testing.assert_close(shared_weights, weights, rtol=0, atol=1e-5)


def test_each_process_draws_its_own_dropout_and_the_first_that_of_one_process(both: Both) -> None:
    (_, one), (_, two) = both("seeds")
    assert one["seeds"].tolist() == [5]
    assert two["seeds"].tolist() == [5, 6]


def test_a_loss_that_is_not_finite_in_one_process_stops_all_in_the_same_step(both: Both) -> None:
    # That every process raised the error is asserted in each of them.
    (one, _), (two, _) = both("diverging")
    assert two == one == {"steps": 1}


def test_held_back_users_are_counted_once_each_by_both(both: Both) -> None:
    (one, weights), (two, shared_weights) = both("preferences")
    assert one["validation/users"] == 19
    assert one["validation/explained_share"] > 0
    assert two == pytest.approx(one, rel=1e-4)
    # The head's inputs differ little beside what they have in common, which enlarges the order of a sum.
    torch.testing.assert_close(shared_weights, weights, rtol=5e-4, atol=1e-4)
