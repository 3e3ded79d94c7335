"""What a run says fits 80 columns, whatever it has to say."""

from __future__ import annotations

import logging
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest

from vimlight.commands.train import quietly
from vimlight.report.folding import Folding
from vimlight.report.opening import say_written

TEXTS = {
    "short": "module 'letters' is in the zoo 'zoo'",
    "long": "modules by leave-one-out error on 50 images: " + ", ".join(f"module-{n} 0.0{n}00" for n in range(9)),
    "lines": "one\n" + "two " * 30 + "\nthree",
}


def folded(text):
    return Folding().format(logging.LogRecord("name", logging.INFO, "file", 1, text, None, None))


@pytest.mark.parametrize("text", TEXTS.values(), ids=list(TEXTS))
def test_words_are_kept_and_lines_fit(text):
    lines = folded(text).split("\n")
    assert all(len(line) <= 80 for line in lines)
    assert " ".join(lines).split() == text.split()
    assert len(lines) > 1 or len(text) <= 80


def test_what_follows_is_set_in():
    first, second = folded(f"{'word ' * 16}end").split("\n")
    assert (first, second) == (("word " * 16).rstrip(), "  end")


def test_a_path_is_not_broken():
    assert folded("a " + "b/" * 60) == "a\n  " + "b/" * 60


def test_lightnings_lines_are_folded_in_a_run(monkeypatch):
    handler = logging.StreamHandler()
    monkeypatch.setattr(logging.getLogger("lightning.pytorch"), "handlers", [handler])
    with quietly():
        assert isinstance(handler.formatter, Folding)
    assert handler.formatter is None


@pytest.mark.parametrize(("files", "line"), [
    (["a.csv"], "a.csv"),
    (["a.csv", "b.csv"], "a.csv, b.csv"),
    (["a.json", "config.yaml", "last.ckpt"], "last.ckpt, config.yaml, a.json"),
    ([f"file-{number:02}.csv" for number in range(30)], "file-00.csv, file-01.csv and 28 more"),
    ([f"{'long' * 20}-{number}.csv" for number in range(3)], "3 files"),
])  # fmt: skip
def test_the_closing_line_names_what_it_has_room_for(tmp_path, monkeypatch, caplog, files, line):
    monkeypatch.chdir(tmp_path)
    folder = Path("runs/fit/version_0/somewhere")
    folder.mkdir(parents=True)
    for name in files:
        (folder / name).touch()
    with caplog.at_level(logging.INFO):
        say_written(SimpleNamespace(fast_dev_run=False, log_dir=str(folder)))
    assert caplog.messages[-1] == f"written to {folder}: {line}"
    assert len(caplog.messages[-1]) <= 80


@pytest.mark.parametrize("text", [
    "Restoring states from the checkpoint path at runs/fit/version_0/checkpoints/last.ckpt",
    "Restored all states from the checkpoint at last.ckpt", "Loaded model weights from the checkpoint at last.ckpt",
    "GPU available: False, used: False", "`Trainer.fit` stopped: `max_epochs=1` reached.",
])  # fmt: skip
def test_what_the_command_line_said_is_not_said_again(text, caplog):
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    with quietly(), caplog.at_level(logging.INFO, logger.name):
        logger.info(text)
        logger.info("news")
    assert caplog.messages == ["news"]


def test_a_test_run_is_not_warned_of_its_own_directory(recwarn):
    with quietly():
        warnings.warn(
            "The dirpath has changed from 'runs/fit' to 'runs/test', therefore `best_k_models` ...", stacklevel=1
        )
        warnings.warn("something else", stacklevel=1)
    assert [str(each.message) for each in recwarn] == ["something else"]
