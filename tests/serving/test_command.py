"""`vimlight serve` as a command: what is wrong is one line, and as a process it answers as `predict` does and ends."""

from __future__ import annotations

import base64
import csv
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from browser import CHROMIUM, Browser, shot
from numerics import shaken
from PIL import Image
from tiny_serving import png

import vimlight as vl
from vimlight import serving
from vimlight.cli import main
from vimlight.commands import serve
from vimlight.errors import ConfigError
from vimlight.serving import server

QUIET = {
    "enable_progress_bar": False,
    "enable_model_summary": False,
    "accelerator": "cpu",
    "devices": 1,
    "max_epochs": 1,
}
BACKBONE = {"name": "vit_scenes_small", "pretrained": True}


@pytest.fixture
def checkpoint(tmp_path):
    (tmp_path / "last.ckpt").write_text("no checkpoint")
    (tmp_path / "config.yaml").write_text("data: {init_args: {dataset: scenes, dataset_args: {task: letters}}}")
    return str(tmp_path / "last.ckpt")


def refused(capsys, *words):
    with pytest.raises(SystemExit) as stopped:
        main(["serve", *words])
    assert stopped.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") <= 2
    return said


def test_a_port_in_use_is_said_before_anything_is_loaded(checkpoint, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = refused(capsys, checkpoint, "--port", str(port))
    assert said == f"vimlight: cannot listen at 127.0.0.1, port {port}: Address already in use; choose another --port\n"


def test_other_mistakes_are_one_line(checkpoint, capsys, monkeypatch):
    assert "--host 'no.such.invalid' is no address of this machine" in refused(
        capsys, checkpoint, "--host", "no.such.invalid"
    )
    assert "cannot listen at 203.0.113.9" in refused(capsys, checkpoint, "--host", "203.0.113.9", "--port", "0")
    assert "last.ckpt" in refused(capsys, checkpoint, "--port", "0")
    assert "two checkpoints are called 'a'" in refused(capsys, f"a={checkpoint}", f"a={checkpoint}", "--port", "0")
    monkeypatch.setattr(serve, "find_spec", lambda name: None)
    said = refused(capsys, checkpoint)
    assert said == "vimlight: vimlight serve needs starlette and uvicorn: pip install 'vimlight[serve]'\n"


def test_only_this_machine_is_answered_unless_asked(monkeypatch, checkpoint):
    seen = []

    def bound(host, port):
        seen.append((host, port))
        raise ConfigError("enough")

    monkeypatch.setattr(server, "bound", bound)
    for words in ([], ["--host", "0.0.0.0", "--port", "9"]):
        with pytest.raises(ConfigError):
            serve.main([checkpoint, *words])
    assert seen == [("127.0.0.1", 8000), ("0.0.0.0", 9)]


def test_the_device_is_refused_before_the_port_or_reaches_the_models(monkeypatch, checkpoint, capsys):
    said = refused(capsys, checkpoint, "--device", "cuda:99")
    assert said == "vimlight: device 'cuda:99' is not to be had here; choose auto, cpu or cuda\n"
    seen = []

    def load(checkpoints, *, zoo, device):
        seen.append(device)
        raise ConfigError("enough")

    monkeypatch.setattr(serving.ServedTasks, "load", load)
    for words in (["--device", "cpu"], []):
        with pytest.raises(ConfigError):
            serve.main([checkpoint, "--port", "0", *words])
    assert seen == [torch.device("cpu"), torch.device("cuda:0" if torch.cuda.is_available() else "cpu")]


@pytest.mark.parametrize("suffix", [".onnx", ".pt2", ".safetensors"])
def test_an_exported_file_is_refused_with_what_to_give_instead(tmp_path, capsys, suffix):
    (tmp_path / f"model{suffix}").write_bytes(b"")
    said = refused(capsys, str(tmp_path / f"model{suffix}"))
    assert "is no checkpoint: an exported file has a backbone of its own" in said
    assert "give the checkpoint that it was made from" in said


def test_tasks_are_called_by_their_data_or_as_one_likes(checkpoint):
    named = [serve._named(word) for word in (checkpoint, f"mine={checkpoint}", checkpoint)]
    assert list(serve._checkpoints(named)) == ["scenes/letters", "mine", "scenes/letters (2)"]


def config(stage, model, data):
    last = {"class_path": "ModelCheckpoint", "init_args": {"save_last": True, "save_top_k": 0}}
    return {
        "model": {"class_path": f"{stage}Module", "init_args": {"backbone": BACKBONE, **model}},
        "data": {"class_path": f"{stage}DataModule", "init_args": data},
        "trainer": {**QUIET, "callbacks": [last]},
    }


RUNS = {
    "digits": config("Downstream", {}, {"dataset": "digits", "shots": 5, "test_limit": 8}),
    "segments": config(
        "Downstream",
        {"task": {"kind": "segmentation", "head": "linear"}},
        {"dataset": "scenes", "dataset_args": {"task": "segments", "train": 60, "test": 6}, "shots": 5},
    ),
}


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """The directory of two finished runs over a zoo of two modules, and what `predict` wrote of their test images."""
    monkeypatch.chdir(tmp_path)
    backbone = vl.create_backbone(**BACKBONE)
    for number, name in enumerate(("letters", "shapes")):
        vl.Zoo("zoo").add(name, shaken(vl.create_plugin("convpass", backbone, hidden=4), 0.3, number))
    for number, (name, content) in enumerate(RUNS.items()):
        Path(f"{name}.yaml").write_text(yaml.safe_dump(content))
        main(["fit", "--config", f"{name}.yaml"])
        main(
            [
                "predict",
                "--config",
                f"{name}.yaml",
                "--ckpt_path",
                str(_last(number)),
                "--predictions.path",
                f"{name}.csv",
            ]
        )
    return tmp_path


def _last(number):
    return Path(f"runs/fit/version_{number}/checkpoints/last.ckpt")


def asked(address, content=None, kind="image/png"):
    headers = {} if content is None else {"Content-Type": kind}
    with urllib.request.urlopen(urllib.request.Request(address, content, headers), timeout=60) as response:
        return json.load(response)


def check_digits(address):
    """Probabilities are those that `predict` wrote."""
    table = vl.DownstreamDataModule("digits", shots=5, test_limit=8)
    with Path("digits.csv").open() as file:
        rows = list(csv.DictReader(file))
    images, _ = table.tables["test"].examples(range(2), table.layout)
    for row, pixels in zip(rows, images, strict=False):
        content = io.BytesIO()
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(content, format="PNG")
        answer = asked(f"{address}predict", content.getvalue())["tasks"]["digits"]
        assert answer["label"] == row["label"]
        for each in answer["top"]:
            assert each["probability"] == pytest.approx(float(row[f"p_{each['class']}"]), abs=1e-3)


def check_masks(address):
    """A mask is the one that `predict` wrote."""
    table = vl.DownstreamDataModule(**RUNS["segments"]["data"]["init_args"])
    with Path("segments.csv").open() as file:
        row = next(csv.DictReader(file))
    images, _ = table.tables["test"].examples([0], table.layout)
    content = io.BytesIO()
    Image.fromarray(images[0].permute(1, 2, 0).numpy()).save(content, format="PNG")
    answer = asked(f"{address}predict?files=1", content.getvalue())["tasks"]["segments"]
    found, written = (np.asarray(Image.open(file)) for file in
                      (io.BytesIO(base64.b64decode(answer["file"]["content"])), Path(row["file"])))  # fmt: skip
    assert found.shape == written.shape
    assert (found == written).mean() > 0.99
    return content.getvalue()


def check_page(address, image, folder):
    """An image is dropped and chosen in a browser, in both schemes and by keys."""
    browser = Browser(folder)
    try:
        for dark in (False, True):
            browser.open(address, dark=dark, height=1250)
            browser.run(DROP % base64.b64encode(image).decode())
            wait_for(browser, "said.textContent.includes('digits: ')")
            assert browser.run("document.querySelectorAll('.answer table').length") >= 1
            assert browser.run("document.querySelectorAll('.answer img').length") == 1
            assert browser.run("document.querySelector('.answer meter').value > 0")
            file = folder / "dark.png" if dark else shot("serve", folder)
            browser.screenshot(file)
            with Image.open(file) as picture:
                assert (np.median(np.asarray(picture.convert("L"))) < 60) == dark
        # Keys alone lead to the field: a link to skip to the content, then the field.
        browser.run("document.activeElement.blur()")
        for _ in range(2):
            browser.press("Tab", 9)
        assert browser.run("document.activeElement.id") == "image"
        browser.run(CHOOSE % base64.b64encode(b"no image").decode())
        wait_for(browser, "said.classList.contains('wrong')")
        # What a browser says of an answer that is none is no error of the page.
        assert all("422" in line for line in browser.said)
        assert browser.run("said.textContent").startswith("No answer: the body is no image")
        browser.resize(390, 800)
        assert browser.run("document.documentElement.scrollWidth") <= 390
    finally:
        browser.close()


_FILE = """
  data = new DataTransfer();
  data.items.add(new File([Uint8Array.from(atob('%s'), (c) => c.charCodeAt(0))], 'a.png', { type: 'image/png' }));
"""
DROP = _FILE + "drop.dispatchEvent(new DragEvent('drop', { dataTransfer: data, bubbles: true, cancelable: true }))"
CHOOSE = _FILE + "field.files = data.files; field.dispatchEvent(new Event('change'))"


def wait_for(browser, condition):
    for _ in range(300):
        if browser.run(condition):
            return
        time.sleep(0.1)
    raise AssertionError(f"{condition} did not come true: {browser.run('said.textContent')}, {browser.said}")


def children(process):
    return Path(f"/proc/{process}/task/{process}/children").read_text().split()


@pytest.mark.slow
def test_as_a_process(runs, tmp_path):
    """The real command: it answers what `predict` writes, shows its page in a browser, and ends when it is told to."""
    words = [f"{name}={_last(number)}" for number, name in enumerate(RUNS)]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(Path(vl.__file__).parents[1]), os.environ.get("PYTHONPATH", "")]),
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "vimlight", "serve", *words, "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    try:
        line = process.stdout.readline()
        tasks = r"serving digits \(classification\), segments \(segmentation\)"
        found = re.fullmatch(tasks + r" at (http://127\.0\.0\.1:\d+/); Ctrl-C ends it\n", line)
        assert found, line + process.stderr.read()
        address = found[1]
        assert asked(f"{address}health")["status"] == "ok"
        check_digits(address)
        image = check_masks(address)
        with pytest.raises(urllib.error.HTTPError, match="422"):
            asked(f"{address}predict", b"no image")
        if CHROMIUM is not None:
            (tmp_path / "browser").mkdir()
            check_page(address, image, tmp_path / "browser")
        if sys.platform == "linux":
            assert children(process.pid) == []
        before = sorted(path for path in tmp_path.rglob("*") if "browser" not in path.parts)
        asked(f"{address}predict", png(800, 600))
        assert sorted(path for path in tmp_path.rglob("*") if "browser" not in path.parts) == before
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
        assert (process.returncode, out, err) == (0, "", "")
    finally:
        process.kill()
