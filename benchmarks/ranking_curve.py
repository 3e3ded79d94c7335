"""How successive halving does as a zoo grows: `python -m benchmarks.ranking --curve` and `--quality`.

The curve: zoos of 1 to `--modules` modules, each the beginning of the next. A *pass* is all images through all blocks
of the backbone; the bare backbone counts, starting the gates of a large zoo (1.1 passes) does not. Every module is
judged once on all images, which is what the ranking is held against; these errors are kept in `--out`, so that an
interrupted run goes on.

Quality: how well leave-one-out error and LogME on few labelled images foretell which module helps: their rank
correlation [Spearman] with the test accuracy that each module alone gives the same head, less that of the bare
backbone.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from rich import box
from rich.table import Table
from scipy.stats import spearmanr
from torch import Tensor

from benchmarks import ranking
from vimlight.aggregation.ranking import BARE
from vimlight.backbone import Backbone
from vimlight.data import DownstreamDataModule
from vimlight.files.atomic import write_whole
from vimlight.plugins import attach
from vimlight.report.plots import png
from vimlight.report.tables import print_whole
from vimlight.tasks import create_task
from vimlight.tasks.closed_form import ridge
from vimlight.tasks.evidence import evidence_of
from vimlight.training.base import collect_examples
from vimlight.training.halving import KEPT, SuccessiveHalving
from vimlight.zoo import Zoo

SIZES = (1, 3, 10, 15, 30, 100, 300, 1000)
QUALITY_SHOTS, QUALITY_TRAIN, QUALITY_TEST = 5, 300, 300


def curve(
    backbone: Backbone, zoo: Zoo, tasks: Sequence[str], seeds: int, images: int, folder: Path, judged: int
) -> None:
    """Ranks ever larger zoos, prints the table and writes numbers and picture.

    Args:
        backbone: The backbone.
        zoo: The largest zoo.
        tasks: Downstream tasks.
        seeds: Number of seeds.
        images: How many training images are looked at, at most.
        folder: Where `curve.json`, `curve.png` and the exact errors go.
        judged: How many modules are judged exactly; of larger zoos the passes alone are known.
    """
    rows = []
    for task in tasks:
        for seed in range(seeds):
            data = ranking.task_data(task, seed, images)
            data._preprocessing = backbone.preprocessing
            names = zoo.names()
            exact = exact_errors(backbone, zoo, names[:judged], data, images, folder / f"exact-{task}-{seed}.json")
            for count in (size for size in SIZES if size <= len(names)):
                rows.append({"task": task, "seed": seed, **point(backbone, zoo, names[:count], data, images, exact)})
                print(json.dumps(rows[-1]), flush=True)
    write_whole(folder / "curve.json", json.dumps({"images": images, "rows": rows}, indent=1) + "\n", overwrite=True)
    _show(rows)
    _draw(rows, folder / "curve.png")


def exact_errors(
    backbone: Backbone, zoo: Zoo, names: Sequence[str], data: DownstreamDataModule, images: int, kept: Path
) -> dict[str, float]:
    """Returns the leave-one-out error of each module on all images; those of an earlier run are taken from a file."""
    errors: dict[str, float] = json.loads(kept.read_text()) if kept.exists() else {}
    for name in names:
        if name not in errors:
            vectors, columns, rows = _examples(backbone, zoo, name, data, images)
            errors[name] = float(ridge(vectors, columns, images=rows).loss)
            write_whole(kept, json.dumps(errors), overwrite=True)
    return {name: errors[name] for name in names}


def point(
    backbone: Backbone, zoo: Zoo, names: Sequence[str], data: DownstreamDataModule, images: int,
    exact: Mapping[str, float],
) -> dict[str, Any]:  # fmt: skip
    """Ranks one zoo: its passes, how many of the exact five best are among the eight, how far the best is behind."""
    task = create_task(data.kind, data.class_names)
    halving = SuccessiveHalving(
        backbone, zoo, names, data=data, task=task, readout=ranking.READOUT, solve=ridge, limit=images
    )
    count, ordered = data.visited("train", images), list(names)
    passes = 1.0 + len(names)
    if halving.rungs:
        with _block_images(backbone) as seen:
            ordered = halving.rank("ens_moe").names()
        passes = seen[0] / len(backbone.blocks) / count
    found: dict[str, Any] = {"modules": len(names), "images": count, "passes": passes}
    if len(names) > len(exact):
        return found
    errors = {name: exact[name] for name in names}
    best = sorted(errors, key=errors.__getitem__)[:5]
    chosen = ordered[:KEPT] if halving.rungs else best
    spread = max(errors.values()) - min(errors.values())
    behind = (min(errors[name] for name in chosen) - errors[best[0]]) / spread if spread else 0.0
    return {**found, "best": len(best), "found": len(set(best) & set(chosen)), "behind": behind}


def quality(backbone: Backbone, zoo: Zoo, tasks: Sequence[str], seeds: int, folder: Path) -> None:
    """Prints how well rankings on few images foretell gains, and writes `quality.json`.

    Args:
        backbone: The backbone.
        zoo: The zoo.
        tasks: Downstream tasks.
        seeds: Number of seeds.
        folder: Where it goes.
    """
    rows = []
    for task in tasks:
        for seed in range(seeds):
            data = _few(task, seed, backbone)
            found = {name: _judged(backbone, zoo, name, data) for name in (BARE, *zoo.names())}
            bare = found.pop(BARE)
            gains = [each["accuracy"] - bare["accuracy"] for each in found.values()]
            told = {key: float(spearmanr([each[key] for each in found.values()], gains)[0]) for key in ("loo", "logme")}
            rows.append({"task": task, "seed": seed, "least gain": min(gains), "greatest gain": max(gains), **told})
            print(json.dumps(rows[-1]), flush=True)
    _show_quality(rows, tasks, f"{len(zoo)} modules, {QUALITY_SHOTS} shots")
    write_whole(folder / "quality.json", json.dumps(rows, indent=1) + "\n", overwrite=True)


def _show_quality(rows: Sequence[Mapping[str, Any]], tasks: Sequence[str], what: str) -> None:
    title = f"rank correlation with the gain in test accuracy: {what}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("task", "leave-one-out", "LogME"):
        table.add_column(heading, justify="left" if heading == "task" else "right", no_wrap=True)
    for task in (*tasks, "mean"):
        mine = [row for row in rows if task in (row["task"], "mean")]
        table.add_row(task, *(_spread([row[key] for row in mine]) for key in ("loo", "logme")))
    print_whole(table)


def _few(task: str, seed: int, backbone: Backbone) -> DownstreamDataModule:
    """Returns the data of a task with few labels."""
    whole = ranking.task_data(task, seed, QUALITY_TRAIN)
    few = {"shots": QUALITY_SHOTS, "seed": seed, "test_limit": QUALITY_TEST, "batch_size": 50}
    return DownstreamDataModule(whole.dataset, whole.dataset_args, preprocessing=backbone.preprocessing, **few)


def _judged(backbone: Backbone, zoo: Zoo, name: str, data: DownstreamDataModule) -> dict[str, float]:
    """Returns what the ranking says of a module, less error and more evidence being better, and its test accuracy."""
    train = _examples(backbone, zoo, name, data, len(data.tables["train"]))
    fitted = ridge(train.vectors, train.columns)
    test = _examples(backbone, zoo, name, data, len(data.tables["test"]), "test")
    logits = ((test.vectors.double() - fitted.mean) / fitted.scale) @ fitted.weight.T + fitted.bias
    right = logits.argmax(dim=1) == test.columns.argmax(dim=1)
    return {"loo": -float(fitted.loss), "logme": evidence_of(train), "accuracy": 100 * float(right.double().mean())}


@torch.no_grad()
def _examples(
    backbone: Backbone, zoo: Zoo, name: str, data: DownstreamDataModule, images: int, split: str = "train"
) -> Any:
    task = create_task(data.kind, data.class_names)
    with nullcontext() if name == BARE else attach(backbone, zoo.load(name, backbone)):
        batches = data.batches(split, limit=images)
        return collect_examples(lambda x: backbone(x, ranking.READOUT), batches, task, images)


@contextmanager
def _block_images(backbone: Backbone) -> Iterator[list[int]]:
    """Counts how many images pass a block, over all blocks."""
    seen = [0]

    def count(_: Any, arguments: tuple[Tensor, ...], __: Any) -> None:
        seen[0] += len(arguments[0])

    blocks = [backbone.model.get_submodule(site.name) for site in backbone.blocks]
    hooks = [block.register_forward_hook(count) for block in blocks]
    yield seen
    for hook in hooks:
        hook.remove()


def _spread(values: Sequence[float]) -> str:
    return f"{statistics.fmean(values):.2f}" + (f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else "")


def _by_size(rows: Sequence[Mapping[str, Any]], key: str) -> dict[int, list[float]]:
    sizes = dict.fromkeys(row["modules"] for row in rows if key in row)
    return {size: [row[key] for row in rows if row["modules"] == size and key in row] for size in sizes}


def _show(rows: Sequence[Mapping[str, Any]]) -> None:
    table = Table(title="means over tasks and seeds ± standard deviation", title_justify="left", box=box.SIMPLE_HEAD)
    columns = ("passes", "found", "behind")
    for title in ("modules", "passes", "found of the best five", "behind, of the spread"):
        table.add_column(title, justify="right", no_wrap=True)
    found = {key: _by_size(rows, key) for key in columns}
    for size in found["passes"]:
        table.add_row(str(size), *(_spread(found[key][size]) if size in found[key] else "-" for key in columns))
    print_whole(table)


def _draw(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    figure = Figure(figsize=(7, 3), layout="constrained")
    left, right = figure.subplots(1, 2)
    passes, behind, found = (_by_size(rows, key) for key in ("passes", "behind", "found"))
    means = {size: statistics.fmean(values) for size, values in passes.items()}
    left.loglog(list(means), list(means.values()), marker="o", label="successive halving")
    left.loglog(list(means), [size + 1 for size in means], linestyle="--", label="every module on all images")
    left.set(xlabel="modules", ylabel="passes over the images")
    left.legend()
    lost = {size: [100 * value for value in values] for size, values in behind.items()}
    mean, deviation = ([of(values) for values in lost.values()] for of in (statistics.fmean, statistics.pstdev))
    right.errorbar(list(lost), mean, deviation, marker="o", label="best of eight behind, % of spread")
    right.plot(list(found), [statistics.fmean(v) for v in found.values()], marker="s", label="of the best five found")
    right.set(xlabel="modules", xscale="log")
    right.legend(loc="center left")
    write_whole(file, png(figure), overwrite=True)
