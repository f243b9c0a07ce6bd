"""Visits of the server's page in a browser: what it should show, where it shows it, and what went wrong in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import polars as pl
from playwright.sync_api import Browser, Locator, Page, expect

from support.small_server import NUM_ITEMS, TableEngine
from support.waiting import HANG_SECONDS
from tslrec.serving.catalogue import Catalogue
from tslrec.serving.recommender import Recommender

QUOTED = """a "quoted" thing & 'another'"""
MARKUP = "<b>bold</b> <img src=x onerror=alert(1)>"
TITLES = {5: QUOTED, 6: MARKUP, 7: None}
METRICS = {"test/masked/NDCG@10": 0.0473, "test/unmasked/NDCG@10": 0.0457, "test/users": 100}

CONTRASTS = """
() => {
  const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
  const luminance = (color) => {
    const [r, g, b] = numbers(color).map((part) => part / 255)
      .map((part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    for (let each = element; each; each = each.parentElement) {
      const color = getComputedStyle(each).backgroundColor;
      if (numbers(color)[3] !== 0) return color;
    }
  };
  return [...document.querySelectorAll("body *")]
    .filter((each) => each.checkVisibility() && !each.disabled)
    .filter((each) => [...each.childNodes].some((node) => node.nodeType === 3 && node.data.trim()))
    .map((each) => {
      const pair = [getComputedStyle(each).color, behind(each)].map(luminance).sort((a, b) => b - a);
      return [(pair[0] + 0.05) / (pair[1] + 0.05), each.textContent];
    });
}
"""
"""The contrast of each visible text with what is behind it, by the formula of WCAG 2, and the text."""


def make_recommender(seed: int, method: str) -> Recommender:
    """Items "1" to "30", most of them called `thing N`; item 1 is the most popular."""
    numbers = range(1, NUM_ITEMS + 1)
    titles = [None, *(TITLES.get(item, f"thing {item}") for item in numbers)]
    items = pl.DataFrame(
        {
            "raw_id": ["", *map(str, numbers)],
            "title": pl.Series(titles, dtype=pl.String),
            "count": [0, *(100 - item for item in numbers)],
        }
    )
    facts = {"method": method, "model": "sasrec", "data": "made", "seed": seed, "metrics": METRICS}
    return Recommender(TableEngine(seed), Catalogue(items), facts)


FIRST, SECOND, THIRD = (make_recommender(seed, method) for seed, method in enumerate(("base", "tslrec", "third")))


class Visit:
    """A page in a window of its own, and what went wrong in it.

    Attributes:
        page: see Playwright.
        search: the search field.
        found: the items that a search found.
        faults: errors and warnings of the console, exceptions, and requests that leave the server.
    """

    def __init__(self, browser: Browser, address: str, hash_: str = "", **window: Any) -> None:
        self.page: Page = browser.new_page(**window)
        self.search = self.page.get_by_role("combobox", name="Find items")
        self.found = self.page.locator("#found").get_by_role("option")
        self.faults: list[str] = []
        self.page.set_default_timeout(HANG_SECONDS * 1000)
        self.page.on("console", lambda message: self.faults.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", lambda each: self.faults.extend([each.url] * (not each.url.startswith(address))))
        self.page.goto(f"{address}/{hash_}")
        expect(self.page.locator("#found-note")).not_to_be_empty()

    def rows(self, section: str, model: str = "base") -> Locator:
        """The rows of a list."""
        return self.page.locator(f'#{section} [data-model="{model}"] .rows li')

    def expect_items(self, section: str, items: Sequence[str], model: str = "base") -> None:
        """Waits until a list has these raw ids, in this order."""
        rows = self.rows(section, model)
        expect(rows).to_have_count(len(items))
        for place, item in enumerate(items):
            expect(rows.nth(place)).to_have_attribute("data-item", item)

    def expect_history(self, *titles: str) -> None:
        """Waits until the history has these titles."""
        expect(self.page.locator("#history .title")).to_have_text(titles)


Visitor = Callable[..., Visit]


def recommended(history: list[str], recommender: Recommender = FIRST, **options: Any) -> list[str]:
    """The raw ids that a recommender gives in Python."""
    return recommender.recommend([history], **options)["item"].to_list()


def neighbours(item: str, recommender: Recommender = FIRST, k: int = 10) -> list[str]:
    """The raw ids of the items nearest to an item."""
    return recommender.similar([item], k)["similar"].to_list()
