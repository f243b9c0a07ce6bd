"""Steps of fixed shapes hold what the steps of the other way hold, and are resumed as those are."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from support.static_cases import BACKBONES, MAX_LEN, data_for, make_backbone
from tslrec.data.packing import Packing, first_fit
from tslrec.data.sequence_batch import TrainingBatch
from tslrec.data.static_inputs import StaticStep, static_step
from tslrec.data.static_layouts import MEAN_LEVEL, PrefixLayout, StepShape, best_fit
from tslrec.data.step_groups import StepGroup
from tslrec.data.windows import Prefixes

CASES = ["sasrec", "gru4rec", "caser", "fmlp", "fpmc", "lru"]


def eager_pairs(batch: TrainingBatch, *, prefixes: bool) -> Counter[tuple[int, ...]]:
    """Of each target that counts: the user, if rows have one, the items that its user vector sees, and the target."""
    found: Counter[tuple[int, ...]] = Counter()
    for part in batch.parts:
        for row in range(len(part.items_BL)):
            if prefixes:
                items = part.items_BL[row, : int(part.lengths_B[row])].tolist()
                found[(int(part.users_B[row]), *items, int(part.targets[row]))] += 1
                continue
            for column in part.targets[row].nonzero()[:, 0].tolist():
                user = 0 if part.packing is not None else int(part.users_B[row])
                found[(user, *visible(part.items_BL, part.packing, row, column), int(part.targets[row, column]))] += 1
    return found


def visible(items_BL: torch.Tensor, packing: Packing | None, row: int, column: int) -> list[int]:
    if packing is None:
        return items_BL[row, : column + 1].tolist()
    here = packing.sequences_BL[row] == packing.sequences_BL[row, column]
    places = here.nonzero()[:, 0]
    assert packing.positions_BL[row, places].tolist() == list(range(len(places)))
    return items_BL[row, places[places <= column]].tolist()


def static_pairs(step: StaticStep, shape: StepShape) -> Counter[tuple[int, ...]]:
    found: Counter[tuple[int, ...]] = Counter()
    assert step.targets_T.shape == step.weights_T.shape == (shape.targets,)
    assert torch.equal(step.weights_T > 0, step.targets_T > 0)
    if step.places_T is None:
        rows = [(part, row) for part in step.inputs for row in range(len(part.items_BL))]
        for t in step.weights_T.nonzero()[:, 0].tolist():
            part, row = rows[t]
            items = part.items_BL[row, : int(part.lengths_B[row])].tolist()
            assert not part.items_BL[row, int(part.lengths_B[row]) :].any()
            found[(int(part.users_B[row]), *items, int(step.targets_T[t]))] += 1
        return found
    (part,) = step.inputs
    width = part.items_BL.shape[1]
    for t in step.weights_T.nonzero()[:, 0].tolist():
        row, column = divmod(int(step.places_T[t]), width)
        user = 0 if part.packing is not None else int(part.users_B[row])
        found[(user, *visible(part.items_BL, part.packing, row, column), int(step.targets_T[t]))] += 1
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_static_step_holds_the_targets_of_its_step(name: str) -> None:
    backbone = make_backbone(name)
    eager, groups = data_for(backbone), data_for(backbone, steps_per_batch=4)
    steps = list(eager.train_dataloader())
    found: list[tuple[StepShape, StaticStep]] = []
    for group in groups.train_dataloader():
        assert isinstance(group, StepGroup)
        assert len(group.fields_SFW) == len(group.shapes) == len(group)
        first = len(found)
        found += [
            (shape, static_step(fields_FW, group.items.on(torch.device("cpu")), shape))
            for fields_FW, shape in zip(group.fields_SFW, group.shapes, strict=True)
        ]
        assert group.num_targets == sum(batch.num_targets for batch in steps[first : len(found)])
    assert len(found) == len(steps) > 8
    for (shape, step), batch in zip(found, steps, strict=True):
        for part, (rows, width) in zip(step.inputs, shape.inputs, strict=True):
            assert part.items_BL.shape == (rows, width)
        pairs = static_pairs(step, shape)
        assert pairs == eager_pairs(batch, prefixes=shape.prefixes)
        assert sum(pairs.values()) == batch.num_targets
    # The last step of the pass is smaller, and has the shape of another.
    assert len({shape for shape, _ in found}) <= len(steps) // 2


def test_the_longest_prefixes_run_in_an_input_of_their_own() -> None:
    draw = np.random.default_rng(0)
    lengths = np.minimum(draw.geometric(0.3, 5000), 50)
    prefixes = Prefixes(np.zeros(5000, dtype=np.int64), np.zeros(5000, dtype=np.int64), lengths)
    layout = PrefixLayout(prefixes, 256, 50, fixed_window=False)
    assert layout.divided is not None
    (longest, wide), (others, narrow) = layout.divided.inputs
    assert longest + others == 256
    assert wide == 50
    assert narrow < 10
    plans = [layout.plan(step) for step in np.split(draw.permutation(5000), range(256, 5000, 256))]
    assert {plan.shape for plan in plans} == {layout.divided}
    assert layout.plan(np.argsort(-lengths)[:256]).shape == layout.whole
    assert PrefixLayout(prefixes, 256, 50, fixed_window=True).divided is None


@pytest.mark.parametrize("name", ["sasrec", "gru4rec"])
def test_steps_share_a_few_shapes(name: str) -> None:
    data = data_for(make_backbone(name), steps_per_batch=16, batch_size=120)
    for _ in range(5):
        shapes = {shape for group in data.train_dataloader() for shape in group.shapes}
    assert 1 <= len(shapes) <= MEAN_LEVEL


def test_best_fit_fills_rows_and_splits_no_sequence() -> None:
    draw = np.random.default_rng(0)
    for size in (1, 7, 60, 180):
        lengths_B = np.minimum(draw.geometric(0.15, size), 50)
        rows_B, columns_B, (num_rows, width) = best_fit(lengths_B, 50)
        used = np.zeros((num_rows, width), dtype=int)
        for row, column, length in zip(rows_B, columns_B, lengths_B, strict=True):
            assert column + length <= width
            used[row, column : column + length] += 1
        assert used.max(initial=0) <= 1
        assert used.sum() == lengths_B.sum()
        assert num_rows <= first_fit(lengths_B, 50).shape[0] + 1
        assert used[:, :1].all()


@pytest.mark.parametrize("stop", [0, 1, 3])
@pytest.mark.parametrize("steps_per_epoch", [None, 7])
def test_groups_are_resumed_where_they_stopped(stop: int, steps_per_epoch: int | None) -> None:
    backbone = make_backbone("sasrec")

    def starts(data: object, iterations: int) -> list[list[list[int]]]:
        return [
            [group.fields_SFW[:, 1].flatten().tolist() for group in data.train_dataloader()]  # type: ignore[attr-defined]
            for _ in range(iterations)
        ]

    whole = starts(data_for(backbone, steps_per_batch=2, steps_per_epoch=steps_per_epoch), 3)
    data = data_for(backbone, steps_per_batch=2, steps_per_epoch=steps_per_epoch)
    loader = data.train_dataloader()
    assert len(loader) == len(whole[0]) > 3
    groups = iter(loader)
    for _ in range(stop):
        next(groups)
    resumed = data_for(backbone, steps_per_batch=2, steps_per_epoch=steps_per_epoch)
    resumed.train_dataloader().load_state_dict(loader.state_dict())
    assert starts(resumed, 3) == [whole[0][stop:], *whole[1:]]
    assert loader.state_dict()["step"] == 2 * stop


def test_every_backbone_has_a_case() -> None:
    assert {name.split(",")[0] for name in BACKBONES} == set(CASES)
    assert MAX_LEN % 8 != 0
