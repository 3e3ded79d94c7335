"""The page: whole, escaped, and without anything from outside."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
import torch

from vimlight.errors import ConfigError
from vimlight.report import Page
from vimlight.report.plots import gate_heatmap


class Balance(HTMLParser):
    """Checks that every tag that is opened is closed in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag, attrs):
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def page():
    page = Page("Gates & <shares>", ["First paragraph.", "Second one, 1 < 2."])
    page.heading("Results")
    page.marked(["method", "digits"], [[("ViM", False), ("70.0", True)], [("probe", False), ("60.0", False)]], "Seeds.")
    page.table(["a", "b"], [["1", "<2>"]], "Plain.")
    page.figure(gate_heatmap(torch.ones(1, 2) / 2, ["output"], ["x", "y"]), 'Gates "learnt"')
    return page


def test_page_is_well_formed_and_escaped(page):
    html = page.render()
    parser = Balance()
    parser.feed(html)
    assert parser.open == []
    assert "<h1>Gates &amp; &lt;shares&gt;</h1>" in html
    assert "<td>&lt;2&gt;</td>" in html
    assert html.count("<td class=best>") == 1
    assert 'alt="Gates &quot;learnt&quot;"' in html


def test_page_needs_nothing_from_outside(page):
    html = page.render()
    assert re.findall(r'(?:src|href)="(?!data:)', html) == []
    assert "http" not in html
    assert "<script" not in html
    assert "prefers-color-scheme: dark" in html
    assert 'src="data:image/png;base64,iVBOR' in html


def test_page_is_not_replaced_silently(page, tmp_path):
    path = page.save(tmp_path / "report.html")
    assert path.read_text(encoding="utf-8") == page.render()
    with pytest.raises(ConfigError, match=r"report\.html.*exists"):
        page.save(path)
    with pytest.raises(ConfigError, match="is a directory"):
        page.save(tmp_path)
