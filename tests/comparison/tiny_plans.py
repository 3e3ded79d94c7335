"""Plans of seconds: two tables of drawn squares, a model of random weights, and jobs that run in this process."""

from __future__ import annotations

import csv
from concurrent.futures import Executor, Future
from contextlib import contextmanager

import numpy as np
import yaml
from PIL import Image

BACKBONE = {"name": "test_vit", "pretrained": False, "img_size": 32}
METHODS = ["none", "ens_moe", "uniform"]


def manifest(folder, classes=3, train=5, test=4, seed=0):
    """Writes images of squares, whose place tells the class, and a table of them."""
    folder.mkdir(parents=True)
    rng, rows = np.random.default_rng(seed), []
    for label in range(classes):
        for number in range(train + test):
            pixels = rng.integers(0, 160, (32, 32, 3), dtype=np.uint8)
            pixels[8 * label : 8 * label + 12, 4:28] += np.array([20, 20 * seed, 0], dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{label}_{number}.png")
            rows.append([f"{label}_{number}.png", f"class {label}", "train" if number < train else "test"])
    with (folder / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["path", "label", "split"], *rows])
    return {"dataset": "manifest", "dataset_args": {"path": str(folder / "list.csv")}}


def content(root, **changes):
    """Returns what a plan's file holds: a module, a task, three methods, two seeds."""
    if not (root / "mid").exists():
        manifest(root / "mid")
        manifest(root / "down", seed=1)
    tables = {n: {"dataset": "manifest", "dataset_args": {"path": str(root / n / "list.csv")}} for n in ("mid", "down")}
    return {
        "backbone": BACKBONE,
        "plugin": {"kind": "convpass", "hidden": 2},
        "midstream": [{"name": "mid", **tables["mid"]}],
        "downstream": [{"name": "down", **tables["down"]}],
        "methods": METHODS,
        "shots": 2,
        "seeds": [0, 1],
        "accelerator": "cpu",
        "precision": "32-true",
        **changes,
    }


def write(root, **changes):
    """Writes a plan and returns its path."""
    path = root / "plan.yaml"
    path.write_text(yaml.safe_dump(content(root, **changes)))
    return str(path)


class Here(Executor):
    """Runs each job at once, in this process."""

    def submit(self, fn, /, *args, **kwargs):
        future = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@contextmanager
def here(name, jobs, **options):
    yield Here()
