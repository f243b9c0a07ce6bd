"""The recommendations that a run prints for some of its users."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from support.in_process import RUN, train_here
from tslrec import load
from tslrec.reports.examples import print_examples
from tslrec.system.consoles import plain_console
from tslrec.system.errors import UserError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one run, which printed two users."""
    folder = tmp_path_factory.mktemp("run")
    ended = train_here(*RUN, "method=base", "examples=2", folder=folder)
    assert ended.code == 0, ended.err
    assert "Recommended by base" in ended.out
    assert "user00000" in ended.out
    assert "user00059" in ended.out
    assert "user00001" not in ended.out
    return folder


def test_titles_of_history_and_list_are_shown(folder: Path) -> None:
    (run,) = (folder / "artifacts" / "runs").iterdir()
    text = io.StringIO()
    print_examples(run, 1, plain_console(file=text, width=200))
    recommender = load(run)
    titles = dict(zip(recommender.catalogue.raw_ids, recommender.catalogue.items["title"], strict=True))
    from tslrec.serving.run_folder import open_run
    from tslrec.serving.run_histories import histories_of

    history = histories_of(open_run(run).interactions())
    listed = recommender.recommend(history, 5)["item"][:5]
    had = recommender.catalogue.raw_ids.gather(history.items[: history.offsets[1]][:-6:-1])
    shown = [line for line in text.getvalue().splitlines() if "category" in line]
    assert len(shown) == 5
    for line, left, right in zip(shown, had, listed, strict=True):
        assert titles[left] in line
        assert titles[right] in line
    assert f"tslrec recommend {run} --all-users" in text.getvalue()


def test_nothing_is_shown_unless_it_is_asked_for(folder: Path) -> None:
    ended = train_here(*RUN, "method=base", folder=folder)
    assert ended.code == 0
    assert "Recommended by" not in ended.out


def test_ids_and_paths_with_signs_of_markup_are_shown_as_they_are(tmp_path: Path) -> None:
    rows = [f"u{user},i{(user * item) % 9}[/a] [red]:cat:,{item}" for user in range(1, 13) for item in range(1, 8)]
    data = tmp_path / "[new]" / "clicks.csv"
    data.parent.mkdir()
    data.write_text("\n".join(["user,item,time", *rows]))
    clicks = ["data=csv", f"data.path='{data}'", "data.reader.time_column=time"]
    small = ["model.hidden_size=8", "training.max_epochs=1", "examples=1"]
    ended = train_here("method=base", *clicks, *small, folder=tmp_path / "old:cat:")
    assert ended.code == 0, ended.err
    assert "[/a] [red]:cat:" in ended.out
    assert f"Result: {tmp_path}/old:cat:/artifacts/runs/" in ended.out


def test_a_method_that_recommends_to_nobody_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(run: Path) -> None:
        raise UserError(f"{run}: recommends nothing")

    monkeypatch.setattr("tslrec.reports.examples.load", refuse)
    ended = train_here(*RUN, "method=base", "examples=2", folder=folder)
    assert ended.code == 0, ended.err
    assert "No examples: " in ended.out
