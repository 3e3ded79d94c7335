"""`vimlight new`: what it writes works, is found by name, and replaces nothing."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from own_packages import announce, announced_by

from vimlight.cli import main
from vimlight.commands.new import KINDS

ROOT = Path(__file__).parents[2]


def new(capsys, *words):
    capsys.readouterr()
    main(["new", *words])
    return capsys.readouterr().out


def refusal(capsys, *words):
    with pytest.raises(SystemExit) as leaving:
        main(["new", *words])
    assert leaving.value.code == 2
    return capsys.readouterr().err


def files_in(folder):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def package(tmp_path_factory):
    """A package with one of each kind, and what its own tests and the linter say of it."""
    site = tmp_path_factory.mktemp("site")
    for kind in KINDS:
        main(["new", kind, f"own_{kind}", "--to", str(site / "own")])
    announce(site, "own", announced_by(site / "own" / "pyproject.toml"))
    places = os.pathsep.join(map(str, (ROOT, site, site / "own")))
    words = ["-m", "pytest", "-rA", "-p", "no:cacheprovider", "-c", "own/pyproject.toml", "own/tests"]
    environment = {**os.environ, "PYTHONPATH": places, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *words], cwd=site, env=environment, capture_output=True, text=True, check=False
    )
    return site / "own", done.stdout


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_its_own_tests_pass(package, kind):
    said = package[1]
    assert len(re.findall(rf"PASSED own/tests/test_own_{kind}.py", said)) >= 3, said
    assert not re.findall(rf"(FAILED|ERROR) own/tests/test_own_{kind}.py.*", said), said
    assert "warning" not in said


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_clean_and_announced(here, capsys, kind):
    said = new(capsys, kind, f"own_{kind}")
    folder = here / f"vimlight-own-{kind}"
    group = KINDS[kind].registry.group
    assert announced_by(folder / "pyproject.toml") == {group: {f"own_{kind}": f"vimlight_own_{kind}.own_{kind}"}}
    written = [line.removeprefix("wrote ") for line in said.splitlines() if line.startswith("wrote ")]
    assert sorted(written) == sorted(f"{folder.name}/{name}" for name in files_in(folder))
    assert f"next: pip install -e '{folder.name}[dev]'\n" in said
    assert all(len(line) <= 80 for line in said.splitlines())
    for words in (("check",), ("format", "--check")):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *words, "--no-cache", folder], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout
    # The rules of this house, which are more than those of the package.
    house = [
        "check",
        "--no-cache",
        "--config",
        ROOT / "pyproject.toml",
        "--ignore",
        "I001",
        folder / f"vimlight_own_{kind}",
    ]
    done = subprocess.run([sys.executable, "-m", "ruff", *house], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("layout", [".", "src"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_package_that_is_there_gets_one_more(here, capsys, kind, layout):
    """Whatever it says of itself stays as it was, comments and all."""
    before = (
        '[project]\nname = "Theirs-Own"\n\n# mine\n'
        '[project.entry-points."vimlight.plugins"]  # all\nold = "theirs_own.old"\n\n[tool.x]\ny = 1\n'
    )
    code = here / "p" / layout / "theirs_own"
    code.mkdir(parents=True)
    (code / "__init__.py").write_text("")
    (here / "p" / "tests").mkdir()
    (here / "p" / "tests" / "__init__.py").write_text("")
    project = here / "p" / "pyproject.toml"
    project.write_text(before)
    new(capsys, kind, "more", "--to", "p")
    assert announced_by(project)[KINDS[kind].registry.group]["more"] == "theirs_own.more"
    assert announced_by(project)["vimlight.plugins"]["old"] == "theirs_own.old"
    kept = [line for line in project.read_text().splitlines() if line in before.splitlines()]
    assert [line for line in kept if line] == [line for line in before.splitlines() if line]
    assert (here / "p/tests/test_more.py").is_file()
    untouched = files_in(here)
    assert f"has an entry point 'more' in {KINDS[kind].registry.group} already" in refusal(
        capsys, kind, "more", "--to", "p"
    )
    assert files_in(here) == untouched
    project.write_text(before)
    (code / "more.py").write_text("mine")
    assert "more.py' exists already; choose another name" in refusal(capsys, kind, "more", "--to", "p")
    assert (code / "more.py").read_text() == "mine"


NAMES = {
    "My-Thing": "'My-Thing' is no name in lower-case letters, digits and underscores, such as 'my_thing'",
    "OwnScale": "such as 'own_scale'",
    "3d": "'3d' is no name in lower-case letters, digits and underscores\n",
    "class": "'class' is no name",
    "../up": "such as 'up'",
    "größe": "is no name",
}


@pytest.mark.parametrize(("name", "message"), NAMES.items(), ids=list(NAMES))
def test_a_name_that_is_none_is_refused(here, capsys, name, message):
    assert message in refusal(capsys, "plugin", name)
    assert not list(here.iterdir())


@pytest.mark.parametrize("kind", KINDS)
def test_a_taken_name_is_refused(here, capsys, kind):
    registry = KINDS[kind].registry
    name = next(iter(registry))
    said = refusal(capsys, kind, name)
    assert f"{registry.kind} '{name}' is registered already; choose another name, such as 'my_{name}'" in said
    assert not list(here.iterdir())


def test_the_name_that_is_suggested_is_free(here, capsys, monkeypatch):
    registry = KINDS["plugin"].registry
    monkeypatch.setattr(registry, "_entries", {**registry._entries, "my_lora": object, "my_own": object})
    assert "such as 'lora_2'" in refusal(capsys, "plugin", "lora")
    assert "such as 'my_own_2'" in refusal(capsys, "plugin", "my_own")


def test_an_unknown_kind_is_refused_with_the_nearest(here, capsys):
    assert "unknown kind of vimlight new 'plugins'; did you mean 'plugin'?" in refusal(capsys, "plugins", "own")


PROJECTS = {
    "no TOML": ("[project", {"a"}, "pyproject.toml is no valid TOML: "),
    "no package": ("[project]\n", set(), "(a folder with __init__.py), named as the project; found: none"),
    "two packages": ("[project]\n", {"a", "b"}, "found: a, b"),
    "inline": ("[project]\nentry-points = {}\n", {"a"}, 'entry-points."vimlight.plugins"] there: own = "a.own"'),
    "announced": ('[project.entry-points."vimlight.plugins"]\nown = "b"\n', {"a"}, "has an entry point 'own' in"),
}  # fmt: skip


@pytest.mark.parametrize("case", PROJECTS)
def test_a_project_that_cannot_be_added_to_stays_as_it_is(here, capsys, case):
    text, packages, message = PROJECTS[case]
    for name in packages:
        (here / "p" / name).mkdir(parents=True)
        (here / "p" / name / "__init__.py").write_text("")
    (here / "p").mkdir(exist_ok=True)
    (here / "p" / "pyproject.toml").write_text(text)
    before = files_in(here)
    assert message in refusal(capsys, "plugin", "own", "--to", "p")
    assert files_in(here) == before


@pytest.mark.parametrize(("folder", "file", "message"), [
    ("p", "p/notes.txt", "'p' has no pyproject.toml, and something else is there; name another: --to DIR"),
    ("p", "p", "'p' has no pyproject.toml, and something else is there"),
    ("3d", None, "no package can be called '3d'; name another directory: --to DIR"),
])  # fmt: skip
def test_a_directory_that_cannot_hold_a_package_is_refused(here, capsys, folder, file, message):
    if file:
        (here / file).parent.mkdir(exist_ok=True)
        (here / file).write_text("mine")
    before = files_in(here)
    assert message in refusal(capsys, "plugin", "own", "--to", folder)
    assert files_in(here) == before


@pytest.mark.parametrize("words", [(), *((kind,) for kind in KINDS)])
def test_its_help_fits_a_terminal(capsys, words, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as leaving:
        main(["new", *words, "--help"])
    assert leaving.value.code == 0
    assert all(len(line) <= 80 for line in capsys.readouterr().out.splitlines())
