"""`--model.help` and `--data.help` name everything that can be chosen there, and everything that it takes."""

from __future__ import annotations

import inspect

import pytest

from vimlight.cli import main
from vimlight.commands.choices import GROUPS
from vimlight.data.sources import SOURCES

CHOICES = [(top, group, name) for top, groups in GROUPS.items() for group in groups for name in group.find()]


def said(capsys, *words):
    capsys.readouterr()
    main(list(words))
    return capsys.readouterr().out


@pytest.mark.parametrize("top", GROUPS)
@pytest.mark.parametrize("command", ["fit", "test"])
def test_all_names_are_listed_with_what_they_are(capsys, command, top):
    lines = said(capsys, command, f"--{top}.help").splitlines()
    rows = dict(line.split("\t") for line in lines if "\t" in line)
    names = [name for group in GROUPS[top] for name in group.find()]
    assert list(rows) == ["name", *names]
    assert all(10 < len(what) < 125 and not what.endswith(":") for name, what in rows.items() if name != "name")
    assert lines[-1] == f"what one takes: vimlight {command} --{top}.help NAME"
    assert [f"{group.title}: {group.place} NAME" for group in GROUPS[top]] == [
        each for each in lines if each.endswith(" NAME")
    ][:-1]


@pytest.mark.parametrize(("top", "group", "name"), CHOICES, ids=[name for *_, name in CHOICES])
def test_what_one_takes_is_said_in_full(capsys, top, group, name):
    out = said(capsys, "fit", f"--{top}.help", name)
    rows = [line.split("\t") for line in out.splitlines() if "\t" in line and line.count("\t") == 3]
    options = {option: (kind, default, what) for option, kind, default, what in rows if option != "option"}
    kind = group.find()[name]
    own = [
        each.name
        for each in inspect.signature(kind).parameters.values()
        if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY) and each.name not in group.hidden
    ]
    assert set(own) <= options.keys()
    assert not options.keys() & group.hidden
    for option, (type_name, _, what) in options.items():
        assert what, f"{name} says nothing of {option}"
        assert "<" not in type_name
    assert group.place in out
    assert ("classes" in options) or group.find() is not SOURCES


def test_what_a_base_takes_is_said_in_the_words_of_the_class(capsys):
    out = said(capsys, "fit", "--model.help=DownstreamModule")
    assert "backbone\tstr | dict[str, Any] | Backbone\t(needed)\tThe backbone, its name, or the arguments of" in out
    assert 'ranking\tstr\t\'halving\'\t`"halving"`, or `"exact"`' in out
    assert "optimizer\t" in out


@pytest.mark.parametrize(("words", "message"), [
    (["--model.help", "lorra"], "unknown choice of model 'lorra'; did you mean 'lora'"),
    (["--data.help=digts"], "unknown choice of data 'digts'; did you mean 'digits'?"),
])  # fmt: skip
def test_an_unknown_name_is_refused_with_the_nearest(capsys, words, message):
    with pytest.raises(SystemExit) as leaving:
        main(["fit", *words])
    assert leaving.value.code == 2
    assert message in capsys.readouterr().err


def test_it_may_stand_behind_other_options(capsys):
    assert "plug-ins: --model.plugin NAME" in said(capsys, "fit", "--model.help", "--config", "nothing.yaml")
