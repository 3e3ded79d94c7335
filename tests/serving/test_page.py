"""The page: everything is in it, its policy knows it, and names of strangers stay text."""

from __future__ import annotations

import base64
import hashlib
import re

import pytest

from vimlight.serving import ServedTasks
from vimlight.serving.page import mean_gates, policy, render


@pytest.fixture(scope="module")
def page(served):
    return render(served, 20)


@pytest.mark.parametrize("tag", ["style", "script"])
def test_its_policy_knows_its_own_code_and_no_other(page, tag):
    (content,) = re.findall(rf"<{tag}>(.*?)</{tag}>", page, flags=re.DOTALL)
    known = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
    assert f"{tag}-src 'sha256-{known}';" in policy()
    assert not re.search(r"\s(on\w+|style)=", page)


def test_it_loads_nothing(page):
    assert not re.findall(r"(?:src|href|action)=\"(?!#|data:)", page)
    assert "http" not in re.sub(r"http-equiv|xmlns=\"http://www.w3.org/2000/svg\"", "", page.partition("<script>")[0])


def test_every_task_says_what_it_is_and_which_modules_spoke(page, served):
    for name, task in served.tasks.items():
        assert f'data-task="{name}"' in page
        assert page.count(f"{name}: what each module weighs at each place.") >= 1
        loud = mean_gates(task.gates)
        assert page.count(f'aria-label="letters: {loud["letters"]:.2f}"') >= 1
    assert page.count("<meter") == 2 * len(served.tasks)
    assert "in 2 passes" in page


def test_without_modules_the_backbone_is_bare(create):
    page = render(ServedTasks({"x": create(aggregator="none")}), 1.5)
    assert "The bare backbone: no module takes part." in page
    assert 'data-most="1500000"' in page
    assert "in one pass" in page


def test_gates_of_any_sign_are_loud():
    from vimlight.pages.sources.fit import Gates

    assert mean_gates(Gates(["p", "q"], ["a", "b"], [[1.0, -0.5], [0.0, -0.5]])) == {"a": 0.5, "b": 0.5}


def test_names_of_strangers_are_text(create):
    page = render(ServedTasks({"<script>alert(1)</script>": create("segmentation")}), 20)
    assert "<script>alert" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") > 3


def test_it_can_be_used_by_keys_and_be_heard(page):
    assert '<label class="drop" for="image"><input type="file" id="image"' in page
    assert 'role="status"' in page
    assert 'aria-describedby="limits"' in page
    assert '<html lang="en">' in page
    assert page.count('alt="') == page.count("<img")
