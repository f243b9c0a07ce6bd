"""The grid of the paper's runs: what it expands to, that all of it composes, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hydra.errors import HydraException

from support.checkout import CHECKOUT
from tslrec.cli.main import main
from tslrec.pipeline.composition import compose_overrides
from tslrec.reports.paper.grid import Cell, read_grid, runnable
from tslrec.system.errors import UserError

GROUP = (
    "{name: A, data: [beauty], model: [sasrec], method: [base, ci], seed: [0, 1], "
    "preset: small, llm: tiny, trainer: cpu"
)


def written(folder: Path, *groups: str) -> Path:
    path = folder / "grid.yaml"
    path.write_text("groups:\n" + "".join(f"  - {group}\n" for group in groups))
    return path


def test_the_grid_begins_with_the_methods_of_table_2_on_beauty() -> None:
    cells = read_grid(CHECKOUT / "results" / "grid.yaml")
    assert [cell.name for cell in cells[:9]] == [
        f"beauty-sasrec-{method}-tuned-seed{seed}" for method in ("base", "ci", "tslrec") for seed in (0, 1, 2)
    ]
    assert cells[0].command == (
        "python train.py data=beauty model=sasrec method=base preset=tuned llm=smollm2_135m trainer=cpu seed=0"
    )


def test_every_kind_of_cell_composes() -> None:
    kinds: dict[tuple[str | None, ...], Cell] = {}
    for cell in runnable(read_grid(CHECKOUT / "results" / "grid.yaml")):
        kinds.setdefault((cell.method, cell.model, cell.source_model, cell.preset), cell)
    for cell in kinds.values():
        try:
            config = compose_overrides(cell.overrides)
        except HydraException as error:
            pytest.fail(f"{cell.name}: {error}")
        assert (config.method.name, config.preset, config.seed) == (cell.method, cell.preset, cell.seed)


def test_seeds_vary_first_and_settings_and_variants_are_the_groups(tmp_path: Path) -> None:
    other = GROUP.replace("name: A", "name: B, variant: deep, source_model: fmlp, settings: [model.num_layers=3]")
    cells = read_grid(written(tmp_path, GROUP + "}", other + "}"))
    names = [cell.name.removeprefix("beauty-sasrec-") for cell in cells[:3]]
    assert names == ["base-small-seed0", "base-small-seed1", "ci-small-seed0"]
    assert cells[-1].name == "beauty-sasrec_from_fmlp-ci-small-deep-seed1"
    assert "source_model=fmlp" in cells[-1].overrides
    assert "model.num_layers=3" in cells[-1].overrides


def test_a_member_can_have_the_seed_after_the_cells(tmp_path: Path) -> None:
    group = GROUP.replace("method: [base, ci]", "method: [ensemble], settings: ['members=[\"seed=<next seed>\"]']")
    cells = read_grid(written(tmp_path, group + "}"))
    assert [cell.overrides[-2:] for cell in cells] == [
        ['members=["seed=1"]', "seed=0"],
        ['members=["seed=2"]', "seed=1"],
    ]


def test_cells_of_a_removed_method_are_in_the_grid_and_cannot_be_run(tmp_path: Path) -> None:
    gone = GROUP.replace("name: A", "name: B, variant: gone, removed: 6ba8946")
    cells = read_grid(written(tmp_path, GROUP + "}", gone + "}"))
    assert [cell.removed for cell in cells] == [*[None] * 4, *["6ba8946"] * 4]
    assert runnable(cells) == cells[:4]
    assert runnable([]) == []
    with pytest.raises(UserError) as caught:
        runnable(cells[4:])
    name = "beauty-sasrec-base-small-gone-seed0"
    assert str(caught.value) == f"{name}: was removed after commit 6ba8946; check it out to run it"


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        ([GROUP + "}", GROUP + "}"], "two cells are called beauty-sasrec-base-small-seed0; give one of the groups"),
        ([GROUP + ", sed: 1}"], "group 'A' has 'sed'; a group has"),
        ([GROUP.replace("seed: [0, 1]", "seed: 0") + "}"], "group 'A' needs 'seed', a list; add it"),
        (
            [GROUP + ", removed: 1234567}"],
            "group 'A' has removed: 1234567, which is no commit; write it like '6ba8946'",
        ),
        ([GROUP + ", removed: yesterday}"], "group 'A' has removed: yesterday, which is no commit"),
        ([GROUP], "no grid"),
    ],
)
def test_what_is_wrong_with_a_grid_is_one_line(tmp_path: Path, groups: list[str], words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        read_grid(written(tmp_path, *groups))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("groups: []", "no list of 'groups'"),
        ("groups: [a]", "no list of 'groups'"),
        (f"common: 5\ngroups: [{GROUP}}}]", "'common' has no settings of all groups"),
        (f"common:\ngroups: [{GROUP}}}]", "'common' has no settings of all groups"),
        (f"groups: [{GROUP}, settings: 5}}]", "group 'A' has settings: 5, which is no list"),
        (f"groups: [{GROUP}, control_of: B}}]", "group 'A' has control_of: B, which is no list"),
    ],
)
def test_what_is_no_grid_is_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "grid.yaml").write_text(content)
    with pytest.raises(UserError, match=re.escape(message)):
        read_grid(tmp_path / "grid.yaml")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--draw", "--only", "zzz*"], "--only zzz*: no finished cell matches"),
        (["--draw", "--list"], "not allowed with argument"),
    ],
)
def test_options_of_paper_that_give_nothing_are_refused(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["paper", "--results", str(CHECKOUT / "results"), *options])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
