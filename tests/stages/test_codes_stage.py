"""The codes stage on recommenders of finished runs, and a fusion that trains on its codes."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import pytest
import torch

from support.in_process import train_here
from support.runs import SMALL
from tslrec.config import Config
from tslrec.data.interactions import Interactions
from tslrec.knowledge.item_codes import joined_vectors, residual_codes
from tslrec.serving.run_folder import open_run
from tslrec.settings.second_stages import CodesConfig
from tslrec.stages import codes, fusion
from tslrec.stages.context import StageContext
from tslrec.stages.fusion_inputs import Sources, load_input
from tslrec.stages.key_settings import codes_settings
from tslrec.stages.members import Member
from tslrec.stages.method_stages import fusion_inputs
from tslrec.stages.outputs import CODES, WEIGHTS, item_codes
from tslrec.stages.restored import Restored, restore, restore_member
from tslrec.system.errors import UserError
from tslrec.system.meter import Meter
from tslrec.system.safetensors_io import load_tensors
from tslrec.training.checkpoints import Checkpoints
from tslrec.training.trainer import StageTrainers

FUSION = {"name": "codes", "_target_": "tslrec.models.fusions.codes.CodesFusion"}

RUNS = {
    "model=gru4rec": ["method=base", "model=gru4rec"],
    "method=ease ease.rank=6": ["method=ease", "ease.rank=6"],
    "method=ease": ["method=ease"],
}
"""The members that the tests choose from, by their words."""


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Member]:
    """Finished runs as members, by their words."""
    found = {}
    for words, overrides in RUNS.items():
        folder = tmp_path_factory.mktemp("member")
        ended = train_here(*SMALL, *overrides, "training.max_epochs=1", folder=folder)
        assert ended.code == 0, ended.err
        run = open_run(folder / "artifacts")
        stage, output = run.last
        found[words] = Member(words, run.config, stage, output, {"data": run.data_folder, **run.stages})
    return found


@pytest.fixture(scope="module")
def interactions(members: dict[str, Member]) -> Interactions:
    return open_run(members["method=ease"].folder.parent.parent).interactions()


class Case:
    """The stages `codes` and `fusion` of one method, whose results are in one folder."""

    def __init__(self, folder: Path, interactions: Interactions, *members: Member, **numbers: Any) -> None:
        self.folder = folder
        self.interactions = interactions
        self.members = members
        config = replace(members[0].config, fusion=FUSION, codes=CodesConfig(**numbers), members=[])
        model = {"name": "gru4rec", "hidden_size": 8, "_target_": "tslrec.models.backbones.gru4rec.GRU4Rec"}
        self.config: Config = replace(config, model=model, method=replace(config.method, stages=["codes", "fusion"]))

    def context(self, stage: str) -> StageContext:
        output = self.folder / stage
        output.mkdir(parents=True)
        checkpoints, meter = Checkpoints(self.folder / f"{stage}.checkpoints"), Meter()
        trainers = StageTrainers(self.config.trainer, stage, output, checkpoints=checkpoints, meter=meter)
        inputs = {"codes": self.folder / "codes"}
        lightning.seed_everything(3, verbose=False)
        return StageContext(
            self.config, self.interactions, 3, output, inputs, trainers, checkpoints, meter, members=self.members
        )

    def sources(self) -> Sources:
        return Sources(self.config, self.interactions, {"codes": self.folder / "codes"})


def two(members: dict[str, Member]) -> list[Member]:
    return [members["model=gru4rec"], members["method=ease ease.rank=6"]]


def test_codes_are_those_of_the_members_item_vectors(
    tmp_path: Path, members: dict[str, Member], interactions: Interactions
) -> None:
    case = Case(tmp_path, interactions, *two(members), sizes=[4, 8])
    metrics = codes.run(case.context("codes"))
    tables = [restore_member(member, interactions).output_IE.numpy() for member in two(members)]
    assert [table.shape[1] for table in tables] == [8, 6]
    expected, explained = residual_codes(joined_vectors(tables), [4, 8], num_starts=1, seed=3)
    found_IC = load_input(case.sources(), "codes_IC")
    assert isinstance(found_IC, torch.Tensor)
    assert found_IC.dtype == torch.int64
    assert np.array_equal(found_IC.numpy(), expected)
    assert metrics == {
        "explained_1": explained[0],
        "explained_2": explained[1],
        "distinct_codes": len({tuple(row) for row in expected[1:].tolist()}),
    }


def test_a_fusion_trains_on_them_and_its_recommender_is_restored(
    tmp_path: Path, members: dict[str, Member], interactions: Interactions
) -> None:
    case = Case(tmp_path, interactions, *two(members), sizes=[4, 8])
    codes.run(case.context("codes"))
    assert fusion_inputs(FUSION) == ["codes_IC"]
    metrics = fusion.run(case.context("fusion"))
    assert 0 <= metrics["test/masked/NDCG@10"] <= 1
    restored = restore("fusion", case.sources(), tmp_path / "fusion")
    assert isinstance(restored, Restored)
    assert restored.output_IE.shape == (interactions.num_items + 1, 8)
    weights = load_tensors(tmp_path / "fusion" / WEIGHTS)
    assert weights["item_embedding.code_weight"].shape == (1 + 4 + 8, 8)
    rows_IC = item_codes(tmp_path / "codes") + torch.tensor([1, 5])
    sums_ID = weights["item_embedding.code_weight"][rows_IC[1:]].sum(dim=1)
    torch.testing.assert_close(restored.output_IE[1:], weights["item_embedding.id_embedding.weight"][1:] + sums_ID)


def test_the_control_has_the_same_codes_at_other_items(
    tmp_path: Path, members: dict[str, Member], interactions: Interactions
) -> None:
    found = []
    for name, permuted in (("as-they-are", False), ("permuted", True)):
        case = Case(tmp_path / name, interactions, *two(members), sizes=[4, 8], permuted=permuted)
        metrics = codes.run(case.context("codes"))
        found.append((item_codes(tmp_path / name / "codes"), metrics))
    (first, same), (second, also) = found
    assert same == also
    assert not torch.equal(first, second)
    assert sorted(map(tuple, first.tolist())) == sorted(map(tuple, second.tolist()))
    settings = [codes_settings(Config(codes=CodesConfig(permuted=permuted))) for permuted in (False, True)]
    assert settings == [{"codes": {}}, {"codes": {"permuted": True}}]


def test_what_makes_no_codes_is_refused_in_one_line(
    tmp_path: Path, members: dict[str, Member], interactions: Interactions
) -> None:
    whole = members["method=ease"]
    with pytest.raises(UserError, match=r"members: 'method=ease' has a number for each pair of items.*ease\.rank=64"):
        codes.run(Case(tmp_path / "whole", interactions, whole, sizes=[4]).context("codes"))
    with pytest.raises(UserError, match=r"codes\.sizes=\[41\]: level 1 has 40 distinct vectors"):
        codes.run(Case(tmp_path / "many", interactions, *two(members), sizes=[41]).context("codes"))
    nobody = replace(Case(tmp_path / "none", interactions, whole).context("codes"), members=())
    with pytest.raises(UserError, match=r"members=\[\]: codes are made from other recommenders; name one"):
        codes.run(nobody)
    for name in ("whole", "many", "none"):
        assert not (tmp_path / name / "codes" / CODES).exists()


def test_codes_of_other_items_are_refused(
    tmp_path: Path, members: dict[str, Member], interactions: Interactions
) -> None:
    case = Case(tmp_path, interactions, *two(members), sizes=[4])
    codes.run(case.context("codes"))
    ids = replace(interactions.ids, items=("", *(f"other{item}" for item in range(1, 41))))
    with pytest.raises(UserError, match=r"codes\.safetensors: its rows are other items than those of"):
        load_input(replace(case.sources(), interactions=replace(interactions, ids=ids)), "codes_IC")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["codes.sizes=[]"], r"codes\.sizes=\[\]: name the number of codes of at least one level"),
        (["codes.sizes=[4,0]"], r"codes\.sizes=0: must be 1 or more"),
        (["codes.num_starts=0"], r"codes\.num_starts=0: must be 1 or more"),
    ],
)
def test_sizes_that_are_none_are_refused_before_anything_is_read(
    tmp_path: Path, words: list[str], message: str
) -> None:
    assert re.search(message, train_here("method=base", *SMALL, *words, folder=tmp_path).refusal)
