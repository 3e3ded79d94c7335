"""Pages in a real browser: nothing on the console, sorting, searching, keys, both schemes, print, many rows."""

from __future__ import annotations

import io

import numpy as np
import pytest
from browser import CHROMIUM, Browser
from PIL import Image
from tiny_results import write_comparison, write_evaluation, write_fit

from vimlight.pages import build_report
from vimlight.pages.sections import SECTIONS
from vimlight.pages.sources import find
from vimlight.report import Page

pytestmark = [pytest.mark.skipif(CHROMIUM is None, reason="no browser"), pytest.mark.slow]
ROWS = "[...document.querySelectorAll('#t tbody tr')].filter((r) => !r.hidden).map((r) => r.cells[{}].textContent)"


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    found = Browser(tmp_path_factory.mktemp("profile"))
    yield found
    found.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """A report of every kind of results."""
    root = tmp_path_factory.mktemp("runs")
    for seed in range(2):
        write_fit(root / "fit" / f"version_{seed}", seed=seed, gain=0.1 * seed)
    write_comparison(root / "compared")
    write_evaluation(root / "moved")
    return build_report([root / "fit", root / "moved", root / "compared"]).save(root / "page.html")


@pytest.fixture(scope="module")
def tabular(browser, tmp_path_factory):
    """Opens a page with 2,000 records, whose table is called `t`."""
    root = tmp_path_factory.mktemp("rows")
    page = Page("Rows")
    page.section("Rows", list(SECTIONS["records"].build(find([write_comparison(root, methods=50, seeds=20)]))))
    browser.open(page.save(root / "page.html"))
    browser.run("document.querySelector('details').open = true; (t = document.querySelector('.tabular')).id = 't'")
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


def test_everything_that_can_be_used_is_reached_and_named(browser, page):
    browser.open(page)
    unnamed = (
        "[...document.querySelectorAll('a, button, input, [tabindex], svg, img')].filter((each) => !(each.textContent "
        "|| each.ariaLabel || each.alt)).map((each) => each.outerHTML)"
    )
    assert browser.run(unnamed) == []
    assert browser.run("[...document.querySelectorAll('table')].every((each) => each.caption.textContent)")
    assert browser.run("[...document.querySelectorAll('figure')].every((f) => f.querySelector('figcaption'))")


def test_a_narrow_window_scrolls_tables_and_nothing_else(browser, page):
    browser.open(page, width=390, height=800)
    assert browser.run("document.documentElement.scrollWidth") <= 390
    # The names of the rows stay in sight.
    browser.run("b = [...document.querySelectorAll('.tabular .scroll')].find((b) => b.scrollWidth > b.clientWidth)")
    browser.run("b.scrollLeft = b.scrollWidth")
    left = "b.querySelector('{}').getBoundingClientRect().left - b.getBoundingClientRect().left"
    assert browser.run("b.scrollLeft") > 0
    assert [abs(browser.run(left.format(cell))) < 2 for cell in ("td", "th")] == [True, True]


def test_what_is_folded_is_printed(browser, page):
    browser.open(page)
    browser.run("addEventListener('afterprint', () => document.title = 'printed', { once: true })")
    pypdf_free = browser.printed()
    assert pypdf_free.startswith(b"%PDF")
    assert io.BytesIO(pypdf_free).read().count(b"/Type /Page\n") > 3
    assert browser.run("[...document.querySelectorAll('details')].every((each) => !each.open)")


def test_the_arrow_of_a_heading_stays_beside_its_word(browser, page):
    browser.open(page)
    # As narrow as the words of the headings.
    browser.run("document.querySelectorAll('td').forEach((cell) => cell.textContent = '')")
    browser.run("document.querySelectorAll('table').forEach((table) => table.style.width = 'min-content')")
    heights = browser.run(
        "[...document.querySelectorAll('th button')].filter((b) => b.firstChild.data?.match(/^[a-z]+$/))"
        ".map((b) => b.offsetHeight).filter((height) => height)"
    )
    assert len(heights) > 5
    assert len(set(heights)) == 1


def test_columns_are_sorted_by_a_click_and_by_a_key(tabular):
    tabular.run("t.querySelectorAll('th button')[6].click()")
    values = list(map(float, tabular.run(ROWS.format(6))))
    assert values == sorted(values, reverse=True)
    assert (len(values), values[0]) == (200, 5.10)
    assert tabular.run("t.querySelectorAll('th')[6].getAttribute('aria-sort')") == "descending"
    tabular.run("t.querySelectorAll('th button')[6].focus()")
    tabular.press("Enter", 13)
    values = list(map(float, tabular.run(ROWS.format(6))))
    assert values == sorted(values)
    assert values[0] == 0
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


def test_further_rows_come_where_one_scrolls_to_and_all_are_printed(tabular):
    tabular.run("b = t.querySelector('.scroll'); b.scrollTop = b.scrollHeight")
    tabular.run("new Promise((done) => setTimeout(done, 200))")
    assert len(tabular.run(ROWS.format(0))) == 400
    assert tabular.run("t.querySelector('table').ariaRowCount") == "2001"
    assert tabular.run("dispatchEvent(new Event('beforeprint')); t.querySelectorAll('tbody tr').length") == 2000
    assert tabular.run("dispatchEvent(new Event('afterprint')); t.querySelectorAll('tbody tr').length") == 200


def test_two_thousand_rows_stay_smooth(tabular, record_property):
    """In processor time, which does not depend on who else has work to do."""
    sort = "t.querySelectorAll('th button')[6].click()"
    search = "f = t.querySelector('input'); f.value = '7'; f.dispatchEvent(new Event('input'))"
    for name, script in (("sort", sort), ("search", search)):
        took = min(tabular.seconds(script) for _ in range(3))
        record_property(name, took)
        assert took < 0.3
