"""Both sides of the comparisons with the authors' P5 and POD train on the same token ids."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import beside_rivals
from growth import market
from rivals import side_p5, side_pod
from rivals.authors_t5 import time_steps
from rivals.side_tslrec_t5 import our_model, stepper
from rivals.t5_batches import T5Case, load_case, padded, save_case
from rivals.t5_cases import p5_case, pod_case
from tslrec.settings.language_models import EncoderDecoderConfig
from tslrec.system.errors import UserError

SMALL = EncoderDecoderConfig(d_model=16, d_kv=8, d_ff=32, num_layers=1, num_decoder_layers=1, num_heads=2)


@pytest.fixture(scope="module")
def cases() -> dict[str, T5Case]:
    data = market(1, users=60, items=40)
    return {"p5": p5_case(data, SMALL, "sequential", 8, 3), "pod": pod_case(data, SMALL, 8, 3)}


@pytest.mark.parametrize("method", ["p5", "pod"])
def test_a_case_is_read_as_it_was_written(method: str, cases: dict[str, T5Case], tmp_path: Path) -> None:
    case = cases[method]
    save_case(case, tmp_path / "case.npz")
    loaded = load_case(tmp_path / "case.npz")
    assert (loaded.vocabulary, loaded.sizes, len(loaded.batches)) == (case.vocabulary, case.sizes, 3)
    for ours, theirs in zip(case.batches, loaded.batches, strict=True):
        assert ours.task == theirs.task
        for mine, read in zip(ours[:3], theirs[:3], strict=True):
            assert len(mine) == 8
            assert all(map(np.array_equal, mine, read))
    assert padded([np.array([3, 1]), np.array([1])]).tolist() == [[3, 1], [1, 0]]


@pytest.mark.parametrize("method", ["p5", "pod"])
def test_our_side_trains_and_gives_a_whole_record(method: str, cases: dict[str, T5Case]) -> None:
    torch.manual_seed(0)
    model = our_model(cases[method], method)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    record = time_steps(model, cases[method], 2, stepper(model, method))
    assert record["steps"] == 2
    assert record["seconds"] >= record["least"] > 0
    assert not torch.equal(model.state_dict()["tokens.weight"], before["tokens.weight"])


@pytest.mark.parametrize(("side", "file"), [(side_p5, "P5.py"), (side_pod, "module.py")])
def test_a_folder_without_the_authors_code_ends_in_one_line(
    side: object, file: str, cases: dict[str, T5Case], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit, match=file):
        side.authors_model(tmp_path, cases["p5"])  # type: ignore[attr-defined]


def test_without_the_environment_the_driver_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"make \.venv-rivals/\.installed, or give --python"):
        beside_rivals.main(["--side", "p5", "--code", str(tmp_path), "--python", str(tmp_path / "none"), "--quick"])
