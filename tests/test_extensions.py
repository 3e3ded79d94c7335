"""Entries that installed packages announce are known everywhere, imported when they are used, and checked then."""

from __future__ import annotations

import importlib

import pytest
from own_packages import announce
from test_registry import PLACES

from vimlight import extensions, trust
from vimlight.errors import ConfigError, UnknownNameError

REGISTRIES = {
    registry.group: (registry, f"from {module} import {name}\n@{name}.register('own')\ndef own(): ...\n")
    for module, name in PLACES
    for registry in [getattr(importlib.import_module(module), name)]
    if registry.group
}


@pytest.fixture(params=REGISTRIES)
def group(request):
    return request.param


@pytest.fixture
def install(group, tmp_path, monkeypatch):
    """Installs packages of one module each, which announce the name `own`; afterwards nothing is left of them."""
    registry, right = REGISTRIES[group]
    monkeypatch.setattr(registry, "_entries", dict(registry._entries))
    monkeypatch.syspath_prepend(tmp_path)
    installed = []

    def one(package, text=right, name="own"):
        (tmp_path / f"{package}.py").write_text(text)
        announce(tmp_path, package, {group: {name: package}})
        installed.append(package)
        importlib.invalidate_caches()

    yield one
    monkeypatch.undo()
    extensions.announced.cache_clear()
    for package in installed:
        importlib.sys.modules.pop(package, None)


@pytest.fixture
def registry(group):
    return REGISTRIES[group][0]


def test_it_is_known_before_it_is_imported(install, registry):
    install("theirs")
    assert "own" in registry
    assert "own" in list(registry)
    assert len(registry) == len(list(registry))
    with pytest.raises(UnknownNameError, match="did you mean 'own'"):
        registry["owm"]
    assert "theirs" not in importlib.sys.modules
    assert registry["own"].__module__ == "theirs"


def test_what_was_registered_by_hand_needs_no_entry_point(install, registry):
    install("theirs", "1 / 0")
    registry.register("own")(one_of_mine)
    assert registry["own"] is one_of_mine


def one_of_mine(): ...


BROKEN = {
    "raises": (
        "import nothing_of_that_name",
        "theirs of theirs cannot be imported (ModuleNotFoundError: No module named",
    ),
    "is no Python": ("def", "theirs of theirs cannot be imported (SyntaxError: "),
    "registers nothing": ("", "theirs announces it, but theirs does not register it"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_broken_one_is_an_error_that_says_whose_it_is(install, registry, case):
    text, message = BROKEN[case]
    install("theirs", text)
    with pytest.raises(ConfigError) as refused:
        registry["own"]
    assert str(refused.value).startswith(f"{registry.kind} 'own': {message}")
    assert "\n" not in str(refused.value)


def test_a_name_that_two_packages_announce_is_nobodys(install, registry):
    install("hers")
    install("theirs")
    with pytest.raises(
        ConfigError, match=f"{registry.kind} 'own' comes from (hers and from theirs|theirs and from hers)"
    ):
        registry["own"]


def test_no_package_takes_the_place_of_what_is_built_in(install, registry, monkeypatch):
    name = next(iter(registry._places))
    monkeypatch.delitem(registry._entries, name, raising=False)
    install("theirs", name=name)
    with pytest.raises(ConfigError, match=f"{name!r} comes from vimlight and from theirs; uninstall all but one"):
        registry[name]


def test_configs_of_strangers_import_no_package_that_is_not_trusted(install, registry, monkeypatch):
    install("theirs")
    monkeypatch.setattr(trust, "_named", ("mine",))
    with pytest.raises(ConfigError, match=r"'own': 'theirs' is not trusted; .* --trusted-modules theirs"):
        registry["own"]
    assert "theirs" not in importlib.sys.modules
    monkeypatch.setattr(trust, "_named", ("theirs",))
    assert registry["own"].__module__ == "theirs"
