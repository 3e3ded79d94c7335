"""Pages in a real browser: nothing on the console, sorting, searching, keys, both schemes, print, many rows."""

from __future__ import annotations

import io

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from PIL import Image
from tiny_results import write_comparison, write_evaluation, write_fit

from vimlight.pages import build_report

pytestmark = [pytest.mark.skipif(CHROMIUM is None, reason="no browser"), pytest.mark.slow]
ROWS = "[...document.querySelectorAll('#t tbody tr')].filter((r) => !r.hidden).map((r) => r.cells[{}].textContent)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report of every kind of results, with 2,000 records."""
    root = tmp_path_factory.mktemp("runs")
    for seed in range(2):
        write_fit(root / "fit" / f"version_{seed}", seed=seed, gain=0.1 * seed)
    write_comparison(root / "compared", methods=50, seeds=20)
    write_evaluation(root / "moved")
    return build_report([root / "fit", root / "moved", root / "compared"]).save(root / "page.html")


@pytest.fixture
def tabular(browser, page):
    """Opens the page and names its longest table `t`."""
    browser.open(page)
    browser.run("document.querySelectorAll('details').forEach((each) => each.open = true)")
    browser.run("(t = [...document.querySelectorAll('.tabular')].sort((a, b) => "
                "b.querySelectorAll('tr').length - a.querySelectorAll('tr').length)[0]).id = 't'")  # fmt: skip
    return browser


@pytest.mark.parametrize("dark", [False, True])
def test_a_page_is_quiet_and_follows_the_scheme(browser, page, tmp_path, dark):
    browser.open(page, dark=dark)
    browser.screenshot(tmp_path / "page.png")
    with Image.open(tmp_path / "page.png") as image:
        pixels = np.asarray(image.convert("L"))
    assert (np.median(pixels) < 60) == dark
    # Both inks are on it, and letters of the figures have the page's.
    assert pixels.std() > 10
    ink, paper = (browser.run(f"getComputedStyle(document.querySelector({what}).{how}") for what, how in
                  (("'svg text:not([class])')", "fill"), ("'body')", "backgroundColor")))  # fmt: skip
    assert ink != paper
    assert browser.said == []


def test_columns_are_sorted_by_a_click_and_by_a_key(tabular):
    tabular.run("t.querySelectorAll('th button')[6].click()")
    values = tabular.run(ROWS.format(6))
    assert len(values) == 2000
    assert list(map(float, values)) == sorted(map(float, values), reverse=True)
    assert tabular.run("t.querySelectorAll('th')[6].getAttribute('aria-sort')") == "descending"
    tabular.run("t.querySelectorAll('th button')[6].focus()")
    tabular.press("Enter", 13)
    values = list(map(float, tabular.run(ROWS.format(6))))
    assert values == sorted(values)
    assert tabular.run("t.querySelectorAll('[aria-sort]').length") == 1
    tabular.run("t.querySelectorAll('th button')[1].click()")
    tasks = tabular.run(ROWS.format(1))
    assert tasks[0] == "cat 0"
    assert [int(task.split()[1]) for task in tasks] == sorted(int(task.split()[1]) for task in tasks)


def test_rows_are_searched_by_words(tabular):
    tabular.run("f = t.querySelector('input'); f.value = 'CAT 5.01 '; f.dispatchEvent(new Event('input'))")
    assert tabular.run(ROWS.format(6)) == ["5.0100"] * 2
    assert tabular.run("t.querySelector('output').value") == "2 of 2,000 rows"
    # What is sorted stays searched.
    tabular.run("t.querySelectorAll('th button')[4].click()")
    assert tabular.run(ROWS.format(4)) == ["11", "10"]
    tabular.run("f.value = ''; f.dispatchEvent(new Event('input'))")
    assert tabular.run("t.querySelector('output').value") == "2,000 rows"


def test_two_thousand_rows_stay_smooth(tabular, record_property):
    """In processor time, which does not depend on who else has work to do."""
    sort = "t.querySelectorAll('th button')[6].click()"
    search = "f = t.querySelector('input'); f.value = '7'; f.dispatchEvent(new Event('input'))"
    for name, script in (("sort", sort), ("search", search)):
        took = min(tabular.seconds(script) for _ in range(3))
        record_property(name, took)
        assert took < 0.5


def test_navigation_leads_to_sections_and_marks_where_one_is(browser, page):
    browser.open(page, height=600)
    names = browser.run("[...document.querySelectorAll('nav a')].map((a) => a.textContent)")
    assert names == browser.run("[...document.querySelectorAll('h2')].map((h) => h.textContent)")
    browser.run("document.documentElement.style.scrollBehavior = 'auto'; document.querySelectorAll('nav a')[3].click()")
    marked = browser.run(
        "new Promise((done) => setTimeout(() => done(document.querySelector('[aria-current]').textContent), 300))"
    )
    assert marked == names[3]
    assert abs(browser.run("document.querySelectorAll('h2')[3].getBoundingClientRect().top")) < 60


def test_everything_that_can_be_used_is_reached_and_named(tabular):
    unnamed = (
        "[...document.querySelectorAll('a, button, input, [tabindex], svg, img')].filter((each) => !(each.textContent "
        "|| each.ariaLabel || each.alt)).map((each) => each.outerHTML)"
    )
    assert tabular.run(unnamed) == []
    assert tabular.run("[...document.querySelectorAll('table')].every((each) => each.caption.textContent)")
    assert tabular.run("[...document.querySelectorAll('figure')].every((f) => f.querySelector('figcaption'))")


def test_a_narrow_window_scrolls_tables_and_nothing_else(browser, page):
    browser.open(page, width=390, height=800)
    assert browser.run("document.documentElement.scrollWidth") <= 390


def test_what_is_folded_is_printed(browser, page):
    browser.open(page)
    browser.run("addEventListener('afterprint', () => document.title = 'printed', { once: true })")
    pypdf_free = browser.printed()
    assert pypdf_free.startswith(b"%PDF")
    assert io.BytesIO(pypdf_free).read().count(b"/Type /Page\n") > 20
    assert browser.run("[...document.querySelectorAll('details')].every((each) => !each.open)")
