"""The page of the server in a real browser."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("playwright", reason="the tests of the page want playwright")
from playwright.sync_api import Browser, Route, expect, sync_playwright

from support.page_visits import CONTRASTS, FIRST, MARKUP, QUOTED, SECOND, THIRD, Visit, Visitor, neighbours, recommended
from support.small_server import NUM_ITEMS, running_server
from support.waiting import HANG_SECONDS
from tslrec.serving.recommender import Recommender
from tslrec.serving.server.models import of_recommender
from tslrec.system.errors import UserError

BROWSER = os.environ.get("CHROMIUM") or shutil.which("chromium")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine, and CHROMIUM names none"),
]


def serve(*recommenders: Recommender) -> Iterator[str]:
    """Serves recommenders by the names of their methods; gives the address."""
    named = [of_recommender(each, each.facts["method"], Path("/nowhere")) for each in recommenders]
    with running_server(named) as client:
        yield str(client.base_url)


@pytest.fixture(scope="module")
def one() -> Iterator[str]:
    yield from serve(FIRST)


@pytest.fixture(scope="module")
def two() -> Iterator[str]:
    yield from serve(FIRST, SECOND)


@pytest.fixture(scope="module")
def three() -> Iterator[str]:
    yield from serve(FIRST, SECOND, THIRD)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=HANG_SECONDS * 1000)
    with sync_playwright() as playwright:
        # No sandbox: the tests may run as root. The other switches keep the browser from the network.
        switches = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"]
        quiet = ["--disable-background-networking", "--disable-component-update"]
        launched = playwright.chromium.launch(executable_path=BROWSER, args=[*switches, *quiet])
        yield launched
        launched.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Visitor]:
    """Opens pages, and checks at the end that nothing went wrong in them."""
    visits: list[Visit] = []

    def open_page(address: str, hash_: str = "", **window: Any) -> Visit:
        visits.append(Visit(browser, address, hash_, **window))
        return visits[-1]

    yield open_page
    for each in visits:
        each.page.close()
    assert [fault for each in visits for fault in each.faults] == []


def test_found_items_make_a_history_and_the_lists_are_those_of_the_recommender(one: str, visit: Visitor) -> None:
    here = visit(one)
    expect(here.page.locator("#summary")).to_have_text("Add an item to the history to see recommendations.")
    for words, title in (("THING quoted", QUOTED), ("bold", MARKUP)):
        here.search.fill(words)
        expect(here.found.locator(".title")).to_have_text([title])
        here.found.click()
        expect(here.page.locator("#said")).to_contain_text(title)
    here.expect_history(QUOTED, MARKUP)
    expected = FIRST.titles(FIRST.recommend([["5", "6"]]))
    here.expect_items("recommended", expected["item"].to_list())
    for row, (item, title, score, rank) in zip(
        here.rows("recommended").all(), expected.select("item", "title", "score", "rank").iter_rows(), strict=True
    ):
        expect(row.locator(".title")).to_have_text(f"Add {title or item}")
        expect(row.locator(".value")).to_have_text(f"{score:.3f}")
        expect(row.locator(".rank")).to_have_text(str(rank))
    here.expect_items("near", neighbours("6"))
    assert here.page.locator("main b, main img").count() == 0


def test_an_item_without_a_title_shows_its_raw_id(one: str, visit: Visitor) -> None:
    here = visit(one)
    here.search.fill("7")
    expect(here.page.locator("#found-note")).to_have_text("3 items.")
    expect(here.found.locator(".title")).to_have_text(["7", "thing 17", "thing 27"])
    here.search.fill("no such words")
    expect(here.page.locator("#found-note")).to_have_text("No item has all of these words.")
    expect(here.found).to_have_count(0)


def test_a_click_on_a_recommendation_adds_it_and_similar_shows_its_neighbours(one: str, visit: Visitor) -> None:
    here = visit(one, "#history=8")
    first, second = recommended(["8"], k=2)
    here.expect_items("recommended", recommended(["8"]))
    here.rows("recommended").nth(1).get_by_role("button", name=re.compile("^Items similar")).click()
    here.expect_items("near", neighbours(second))
    here.rows("recommended").nth(0).get_by_role("button", name=re.compile("^Add")).click()
    here.expect_items("recommended", recommended(["8", first]))
    here.expect_items("near", neighbours(second))
    expect(here.page.locator("#near-note")).to_contain_text(FIRST.catalogue.named([second])[0]["title"] or second)


def test_items_are_moved_and_removed_and_all_are_cleared_and_restored(one: str, visit: Visitor) -> None:
    here = visit(one)
    here.page.get_by_role("button", name="Fill in an example").click()
    here.expect_history("thing 1", "thing 2", "thing 3")
    here.page.get_by_role("button", name="Move thing 3 up").click()
    here.expect_history("thing 1", "thing 3", "thing 2")
    here.page.get_by_role("button", name="Remove thing 1").click()
    here.expect_history("thing 3", "thing 2")
    here.expect_items("recommended", recommended(["3", "2"]))
    here.page.get_by_role("button", name="Clear").click()
    here.expect_history()
    here.expect_items("recommended", [])
    here.page.go_back()
    here.expect_history("thing 3", "thing 2")
    here.expect_items("recommended", recommended(["3", "2"]))


def test_two_models_stand_side_by_side_with_what_differs(two: str, visit: Visitor) -> None:
    here = visit(two, "#history=4,8,5", viewport={"width": 1280, "height": 900})
    first, second = recommended(["4", "8", "5"]), recommended(["4", "8", "5"], SECOND)
    here.expect_items("recommended", first, "base")
    here.expect_items("recommended", second, "tslrec")
    here.expect_items("near", neighbours("5"), "base")
    here.expect_items("near", neighbours("5", SECOND), "tslrec")
    shared = set(first) & set(second)
    same = sum(one == other for one, other in zip(first, second, strict=True))
    summary = f"The lists share {len(shared)} of 10 items, {same} at the same rank."
    expect(here.page.locator("#summary")).to_have_text(summary)
    assert 0 < len(shared) < 10
    for model, mine, other in (("base", first, second), ("tslrec", second, first)):
        for place, item in enumerate(mine):
            by = other.index(item) - place if item in shared else None
            mark = "only here" if by is None else "same rank" if by == 0 else f"{'↑' if by > 0 else '↓'}{abs(by)}"
            expect(here.rows("recommended", model).nth(place).locator(".mark")).to_contain_text(mark)
    for place, model in enumerate(("base", "tslrec")):
        head = here.page.locator("#recommended .column-head").nth(place)
        expect(head.locator("h3")).to_have_text(model)
        expect(head).to_contain_text("Test NDCG@10 .0473 masked, .0457 not masked")
    boxes = [here.rows("recommended", model).first.bounding_box() for model in ("base", "tslrec")]
    assert boxes[0] is not None
    assert boxes[1] is not None
    assert boxes[0]["y"] == boxes[1]["y"]
    assert boxes[0]["x"] + boxes[0]["width"] < boxes[1]["x"]


def test_of_three_models_two_are_chosen_and_the_address_keeps_them(three: str, visit: Visitor) -> None:
    here = visit(three, "#history=4,8")
    here.expect_items("recommended", recommended(["4", "8"]), "base")
    here.page.get_by_label("Model of list 1").select_option("third")
    here.expect_items("recommended", recommended(["4", "8"], THIRD), "third")
    here.expect_items("recommended", recommended(["4", "8"], SECOND), "tslrec")
    # A model that the other list shows changes places with it.
    here.page.get_by_label("Model of list 1").select_option("tslrec")
    expect(here.page.get_by_label("Model of list 2")).to_have_value("third")
    expect(here.page.get_by_label("Model of list 1")).to_be_focused()
    there = visit(three, here.page.url.removeprefix(f"{three}/"))
    there.expect_items("near", neighbours("8", THIRD), "third")
    expect(there.page.locator("#near h3")).to_have_text(["tslrec", "third"])


def test_a_narrow_window_shows_the_lists_below_each_other_and_scrolls_down_only(two: str, visit: Visitor) -> None:
    here = visit(two, "#history=4,8", viewport={"width": 400, "height": 800})
    here.expect_items("recommended", recommended(["4", "8"], SECOND), "tslrec")
    last, first = here.rows("recommended", "base").last.bounding_box(), here.rows("recommended", "tslrec").first
    below = first.bounding_box()
    assert last is not None
    assert below is not None
    assert last["y"] + last["height"] <= below["y"]
    assert here.page.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
    cut = "all => all.filter((each) => each.scrollWidth > each.clientWidth).map((each) => each.textContent)"
    assert here.page.locator(".rows .id").evaluate_all(cut) == []


def test_the_address_restores_the_state_in_a_new_window(two: str, visit: Visitor) -> None:
    here = visit(two, "#history=5,6")
    here.page.get_by_label("Length of the list").select_option("5")
    here.page.get_by_label("Leave out items of the history").uncheck()
    expected = recommended(["5", "6"], k=5, filter_seen=False)
    here.expect_items("recommended", expected)
    here.rows("recommended").nth(2).get_by_role("button", name=re.compile("^Items similar")).click()
    there = visit(two, here.page.url.removeprefix(f"{two}/"))
    there.expect_history(QUOTED, MARKUP)
    there.expect_items("recommended", expected)
    there.expect_items("near", neighbours(expected[2], k=5))
    expect(there.page.get_by_label("Length of the list")).to_have_value("5")
    expect(there.page.get_by_label("Leave out items of the history")).not_to_be_checked()


def test_a_wrong_address_is_put_right_and_unknown_items_are_named(one: str, visit: Visitor) -> None:
    here = visit(one, "#history=gone,8,,%E0%A4&k=9999&filter_seen=perhaps&what")
    expect(here.page.locator("#history .meta")).to_have_text(["not in the catalogue", "id 8", "not in the catalogue"])
    expect(here.page.get_by_label("Length of the list")).to_have_value(str(NUM_ITEMS))
    here.expect_items("recommended", recommended(["8"], k=NUM_ITEMS))
    expect(here.page.locator("#recommended .line")).to_have_text(
        "2 items of the history ignored: not in the catalogue. No more than 29 items can be recommended."
    )
    here.expect_items("near", neighbours("8", k=NUM_ITEMS))


def test_a_history_of_unknown_items_gets_the_popular_ones_and_says_so(one: str, visit: Visitor) -> None:
    here = visit(one, "#history=gone")
    here.expect_items("recommended", [str(item) for item in range(1, 11)])
    expect(here.page.locator("#recommended .line")).to_contain_text("these are the most popular items")


def test_an_error_shows_the_line_of_the_server(one: str, visit: Visitor) -> None:
    with pytest.raises(UserError) as refused:
        FIRST.similar(["gone"])
    here = visit(one, "#history=8&near=gone")
    expect(here.page.locator("#near .error")).to_contain_text(str(refused.value))
    here.expect_items("recommended", recommended(["8"]))
    # The browser itself reports the status in the console.
    assert all("422" in fault for fault in here.faults)
    assert here.faults
    here.faults.clear()


def test_a_server_that_is_gone_is_reported_and_asked_again(one: str, visit: Visitor) -> None:
    here = visit(one, "#history=8")
    here.expect_items("recommended", recommended(["8"]))
    here.page.context.set_offline(True)
    here.page.get_by_label("Leave out items of the history").uncheck()
    for section in ("recommended", "near"):
        error = here.page.locator(f"#{section} .error")
        expect(error).to_contain_text("The server does not answer; check that it runs.")
    here.page.context.set_offline(False)
    for section in ("recommended", "near"):
        here.page.locator(f"#{section}").get_by_role("button", name="Try again").click()
    here.expect_items("recommended", recommended(["8"], filter_seen=False))
    here.expect_items("near", neighbours("8"))
    assert all("ERR_INTERNET_DISCONNECTED" in fault for fault in here.faults)
    here.faults.clear()


def test_an_older_request_is_given_up_when_a_newer_one_begins(one: str, visit: Visitor) -> None:
    here = visit(one, "#history=8")
    here.expect_items("recommended", recommended(["8"]))
    held: list[Route] = []

    def hold(route: Route) -> None:
        question = json.loads(route.request.post_data or "")
        if question["k"] == 5:
            held.append(route)
        else:
            route.continue_()

    here.page.route("**/recommend", hold)
    with here.page.expect_event("requestfailed") as failed:
        here.page.get_by_label("Length of the list").select_option("5")
        here.page.get_by_label("Length of the list").select_option("20")
    here.expect_items("recommended", recommended(["8"], k=20))
    (older,) = held
    assert failed.value == older.request
    assert failed.value.failure == "net::ERR_ABORTED"


def test_everything_works_by_keyboard(one: str, visit: Visitor) -> None:
    here = visit(one)
    keys, focused, chosen = here.page.keyboard, here.page.locator(":focus"), here.page.locator("[aria-selected=true]")
    keys.press("Tab")
    expect(focused).to_have_attribute("id", "search")
    keys.type("thing 1")
    expect(here.page.locator("#found-note")).to_have_text("12 items.")
    expect(chosen.locator(".title")).to_have_text("thing 1")
    keys.press("Enter")
    keys.press("ArrowDown")
    expect(chosen.locator(".title")).to_have_text("thing 10")
    keys.press("Enter")
    keys.press("ArrowUp")
    keys.press("ArrowUp")
    last = here.found.last
    expect(last).to_have_attribute("aria-selected", "true")
    expect(focused).to_have_attribute("aria-activedescendant", last.get_attribute("id") or "")
    here.expect_history("thing 1", "thing 10")

    def tab_to(name: str) -> None:
        button = here.page.get_by_role("button", name=name, exact=True)
        for _ in range(100):
            keys.press("Tab")
            if button.count() and button.evaluate("each => each === document.activeElement"):
                return
        pytest.fail(f"Tab does not reach {name}")

    tab_to("Move thing 10 up")
    assert focused.evaluate("each => getComputedStyle(each).outlineStyle") == "solid"
    keys.press("Enter")
    here.expect_history("thing 10", "thing 1")
    expect(focused).to_have_accessible_name("Move thing 10 down")
    keys.press("Space")
    here.expect_history("thing 1", "thing 10")
    expect(focused).to_have_accessible_name("Move thing 10 up")
    tab_to("Remove thing 10")
    keys.press("Enter")
    here.expect_history("thing 1")
    expect(focused).to_have_accessible_name("Remove thing 1")
    here.expect_items("recommended", recommended(["1"]))
    for _ in range(100):
        keys.press("Tab")
        if here.rows("recommended").first.locator(":focus").count():
            break
    best = recommended(["1"])[0]
    keys.press("Enter")
    here.expect_items("recommended", recommended(["1", best]))
    expect(here.rows("recommended").first.locator(".add")).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_a_contrast_of_four_and_a_half(two: str, visit: Visitor, scheme: str) -> None:
    here = visit(two, "#history=4,8,gone&near=gone", color_scheme=scheme)
    expect(here.page.locator("#near .error")).to_have_count(2)
    here.expect_items("recommended", recommended(["4", "8"]))
    expect(here.page.locator(".answers")).to_have_attribute("aria-busy", "false")
    contrasts = here.page.evaluate(CONTRASTS)
    assert len(contrasts) > 100
    assert [each for each in contrasts if each[0] < 4.5] == []
    here.faults.clear()
