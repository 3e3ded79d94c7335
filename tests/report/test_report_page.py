"""The page: whole, escaped, without anything from outside, and with a policy that lets in no more."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser

import pytest

from vimlight.errors import ConfigError
from vimlight.report import Page
from vimlight.report.html import element, fragment
from vimlight.report.parts import Cell, figure, folded, heading, number_in, paragraph, picture, table


class Balance(HTMLParser):
    """Checks that every tag that is opened is closed in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img", "input"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def page():
    page = Page("Gates & <shares>", ["First paragraph.", "Second one, 1 < 2."])
    rows = [[Cell("ViM"), Cell("70.0 ± 1.0", True)], ["probe", ("60.0 ≈", False)]]
    page.section("Results", [heading("All"), paragraph("Read <this>."), table(["method", "digits"], rows, "Seeds.")])
    page.section("Results", [figure(element("svg"), 'Gates "learnt"'), picture(b"\x89PNG", "Images"), folded("More")])
    return page


def test_page_is_well_formed_and_escaped(page):
    html = page.render()
    parser = Balance()
    parser.feed(html)
    assert parser.open == []
    assert "<h1>Gates &amp; &lt;shares&gt;</h1>" in html
    assert "<p>Read &lt;this&gt;.</p>" in html
    assert html.count('class="best"') == 1
    assert 'aria-label="Gates &quot;learnt&quot;"' in html


def test_page_needs_nothing_from_outside_and_its_policy_says_so(page):
    html = page.render()
    assert re.findall(r'(?:src|href)="(?!data:|#)', html) == []
    assert "http:" not in html
    assert "https:" not in html
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', html)[1].replace("&#x27;", "'")
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    for tag in ("style", "script"):
        content = re.search(rf"<{tag}>(.*?)</{tag}>", html, re.DOTALL)[1]
        assert f"{tag}-src 'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'" in policy
    # Which would forbid them.
    assert not re.search(r"<[^>]* (style|on\w+)=", html)
    assert "prefers-color-scheme: dark" in html


def test_navigation_leads_to_every_section_by_a_name_of_its_own(page):
    html = page.render()
    targets = re.findall(r'<a href="#([^"]*)">Results', html)
    assert len(set(targets)) == 2
    assert all(f'<h2 id="{target}">' in html for target in targets)
    assert "<nav" not in Page("Empty").render()


def test_tables_say_what_they_are_and_are_sorted_by_buttons(page):
    html = page.render()
    assert "<caption>Seeds.</caption>" in html
    assert re.search(r'<th scope="col" class="left"><button type="button">method', html)
    assert re.search(r'<td class="best" data-key="70">70\.0 ± 1\.0<span class="hidden"> \(best\)</span>', html)
    # What stands behind a number does not move it.
    assert re.search(r'<td data-key="60">60\.0<span class="hang"> ≈</span>', html)


@pytest.mark.parametrize(("count", "searched", "boxed"), [(3, False, False), (30, True, False), (300, True, True)])
def test_long_tables_are_searched_and_scroll_in_a_box(count, searched, boxed):
    html = table(["name"], [[str(number)] for number in range(count)], "Numbers.")
    assert ('type="search"' in html) == searched
    assert ("scroll long" in html) == boxed


@pytest.mark.parametrize(
    ("text", "number"),
    [("1,234.5", 1234.5), ("-3.2 ± 5.8", -3.2), ("+1.6 ± 1", 1.6), ("16.8 k", 16800), ("2.5 M", 2.5e6),
     ("1.26 x", 1.26), ("1/2/0", 1), ("2e-05", 2e-5), ("53ab", None), ("t + s", None), ("—", None)],
)  # fmt: skip
def test_what_columns_are_sorted_by(text, number):
    assert number_in(text) == (number if number is None else pytest.approx(number))


def test_elements_escape_texts_and_leave_out_what_is_not_there():
    assert element("td", "<b>", None, ["&", element("i", "x")]) == "<td>&lt;b&gt;&amp;<i>x</i></td>"
    assert element("td", class_=None, hidden=True, open=False, data_key=1.50001) == '<td hidden data-key="1.5"></td>'
    assert element("img", alt='"') == '<img alt="&quot;">'
    assert fragment("<", element("br")) == "&lt;<br>"


def test_halves_of_letters_do_not_keep_a_page_from_being_written(tmp_path):
    assert "a?b" in Page("a\ud800b").save(tmp_path / "a.html").read_text(encoding="utf-8")


def test_page_is_not_replaced_silently(page, tmp_path):
    path = page.save(tmp_path / "report.html")
    assert path.read_text(encoding="utf-8") == page.render()
    with pytest.raises(ConfigError, match=r"report\.html.*exists"):
        page.save(path)
    with pytest.raises(ConfigError, match="is a directory"):
        page.save(tmp_path)
