"""Ranking a zoo by successive halving beside ranking every module on all images.

    python -m benchmarks.ranking --out ranking               # 44 modules, three tasks
    python -m benchmarks.ranking --out ranking-100 --modules 100
    python -m benchmarks.ranking --out ranking-1000 --modules 1000 --tasks digits
    python -m benchmarks.ranking --out curve --modules 1000 --curve      # 1 to 1,000 modules, as a picture
    python -m benchmarks.ranking --out quality --modules 10 --quality    # beside the gains of single modules

The zoo: modules of three types trained for a few steps on drawn midstream tasks over the small shipped image tower at
32 pixels, and copies of them that are weaker or stronger and noisier, so that modules differ by as much as a good one
from none. It is drawn once and kept in `--out`. Then, for each task and seed, one downstream fit with `ranking: exact`
and one with `ranking: halving`, on the same images. A *pass* is all images through all blocks of the backbone; blocks
that modules share count once. It prints what ranking and starting the gates cost, how many of the exact five best are
among the first eight, by how much of the exact spread the best of these eight is behind, and both test accuracies.
`ranking.json` keeps all of it.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from rich import box
from rich.table import Table
from torch import nn

from vimlight.aggregation.ranking import Ranking
from vimlight.backbone import Backbone, create_backbone
from vimlight.cli import guarded
from vimlight.commands.options import Parser
from vimlight.data import DownstreamDataModule, MidstreamDataModule
from vimlight.embedded import vit_scenes_small
from vimlight.errors import ConfigError
from vimlight.files.atomic import write_whole
from vimlight.plugins import Plugin, attach, create_plugin
from vimlight.report.tables import print_whole
from vimlight.training.downstream import DownstreamModule
from vimlight.zoo import Zoo

MIDSTREAM = ("shapes", "textures", "colours", "count", "orientation", "position", "letters")
KINDS: tuple[dict[str, Any], ...] = ({"kind": "convpass", "hidden": 4}, {"kind": "adaptformer"}, {"kind": "lora"})
TRAINED, SIZE, BATCH, TEST, READOUT = 10, 32, 64, 800, "layers"
WAYS = ("exact", "halving")
BARS = {"found": 4, "behind": 0.05, "accuracy": 0.3}


@dataclasses.dataclass(frozen=True)
class Fit:
    """One downstream fit.

    Attributes:
        passes: Bare passes over the images until the gates are started.
        seconds: Processor seconds of that.
        accuracy: Test accuracy, %.
        ranking: The ranking.
    """

    passes: float
    seconds: float
    accuracy: float
    ranking: Ranking


def main(arguments: Sequence[str] | None = None) -> None:
    """Ranks in both ways, prints the table and writes the numbers.

    Args:
        arguments: Options; see `--help`.

    Raises:
        ConfigError: If there are results already and `--overwrite` was not given.
    """
    parser = Parser("python -m benchmarks.ranking", description=__doc__)
    parser.add_argument("--out", default="ranking", help="folder of the zoo and the results (default: ranking)")
    parser.add_argument("--modules", type=int, default=44, help="size of the zoo (default: 44)")
    parser.add_argument("--images", type=int, default=1000, help="training images at most (default: 1000)")
    parser.add_argument("--tasks", nargs="+", default=["digits", "lowercase", "odd_shapes"], help="downstream tasks")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds (default: 1)")
    parser.add_argument("--steps", type=int, default=20, help="training steps of a module (default: 20)")
    parser.add_argument("--curve", action="store_true", help="rank the first 1, 3, 10, ... modules; see ranking_curve")
    parser.add_argument("--judged", type=int, help="of the curve: modules that are judged exactly (default: all)")
    parser.add_argument("--quality", action="store_true", help="how well rankings foretell gains; see ranking_curve")
    parser.add_argument("--overwrite", action="store_true", help="replace results that are there")
    options = parser.parse_args(arguments)
    folder = Path(options.out)
    kept = folder / ("curve.json" if options.curve else "quality.json" if options.quality else "ranking.json")
    if kept.exists() and not options.overwrite:
        raise ConfigError(f"{kept} exists; choose another --out, or pass --overwrite")
    backbone = small_backbone()
    zoo = draw_zoo(folder / "zoo", backbone, options.modules, options.steps)
    if options.curve or options.quality:
        # It imports what is here.
        from benchmarks.ranking_curve import curve, quality

        if options.quality:
            quality(backbone, zoo, options.tasks, options.seeds, folder)
        else:
            judged = options.modules if options.judged is None else options.judged
            curve(backbone, zoo, options.tasks, options.seeds, options.images, folder, judged)
        return
    rows = []
    for task in options.tasks:
        for seed in range(options.seeds):
            fits = {way: fit(backbone, zoo, task, seed, way, options.images) for way in WAYS}
            rows.append({"task": task, "seed": seed, **compared(fits)})
            print(json.dumps(rows[-1]), flush=True)
    show(rows, options.modules)
    found = {"modules": options.modules, "images": options.images, "bars": BARS, "rows": rows}
    write_whole(folder / "ranking.json", json.dumps(found, indent=1) + "\n", overwrite=options.overwrite)


def small_backbone() -> Backbone:
    """Returns the small shipped image tower at 32 pixels."""
    return create_backbone(vit_scenes_small.__name__, pretrained=True, img_size=SIZE)


def draw_zoo(path: Path, backbone: Backbone, count: int, steps: int) -> Zoo:
    """Returns a zoo of trained modules and variants of them; those that are there already are kept.

    Args:
        path: Its directory.
        backbone: The backbone.
        count: Number of modules.
        steps: Training steps of each of the modules that are trained.
    """
    zoo, trained = Zoo(path), []
    for number in range(count):
        name = f"m{number:04}"
        if name not in zoo:
            module = train(number, backbone, steps) if number < TRAINED else variant(trained[number % TRAINED], number)
            zoo.add(name, module)
        if number < TRAINED:
            trained.append(zoo.load(name, backbone))
    return zoo


def train(number: int, backbone: Backbone, steps: int) -> Plugin:
    """Returns a module trained for a few steps; its number decides on type and task."""
    drawn = {"train": min(1280, BATCH * steps), "test": 10, "size": SIZE}
    arguments = {"task": MIDSTREAM[number % len(MIDSTREAM)], **drawn}
    data = MidstreamDataModule("scenes", arguments, seed=number, preprocessing=backbone.preprocessing)
    images, targets = data.arrays("train")
    with torch.random.fork_rng():
        torch.manual_seed(number)
        plugin = create_plugin(backbone=backbone, **KINDS[number % len(KINDS)])
        head = nn.Linear(backbone.num_features(READOUT), data.num_classes)
    groups = [{"params": plugin.parameters(), "lr": 4e-3}, {"params": head.parameters(), "lr": 1e-3}]
    optimizer = torch.optim.AdamW(groups)
    order = torch.Generator().manual_seed(number)
    with attach(backbone, plugin):
        for _ in range(steps):
            rows = torch.randint(len(images), (BATCH,), generator=order)
            features = backbone(images[rows], READOUT)
            logits = head(nn.functional.layer_norm(features, features.shape[1:]))
            optimizer.zero_grad()
            nn.functional.cross_entropy(logits, targets[rows]).backward()
            optimizer.step()
    return plugin


def variant(plugin: Plugin, number: int) -> Plugin:
    """Returns a copy that is weaker or stronger and noisier; its number decides by how much."""
    generator = torch.Generator().manual_seed(number)
    strength, noise = torch.rand(2, generator=generator).tolist()
    copied = copy.deepcopy(plugin)
    with torch.no_grad():
        for parameter in copied.parameters():
            size = parameter.square().mean().sqrt()
            drawn = torch.randn(parameter.shape, generator=generator)
            parameter.mul_(0.2 + 1.3 * strength).add_(noise**2 * size * drawn)
    return copied


class Timed(DownstreamModule):
    """A downstream model that counts what ranking and starting its gates cost.

    Attributes:
        seconds: Processor seconds.
        block_images: How many images passed a block, over all blocks.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.seconds, self.block_images = 0.0, 0
        super().__init__(*arguments, **options)

    def prepare_fit(self) -> None:
        """Ranks a large zoo."""
        with self.counted():
            super().prepare_fit()

    def start_from_ranking(self) -> None:
        """Ranks what is not ranked, and starts the gates."""
        with self.counted():
            super().start_from_ranking()

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Counts what happens inside the context."""
        blocks = [self.backbone.model.get_submodule(site.name) for site in self.backbone.blocks]
        hooks = [block.register_forward_hook(self._count_images) for block in blocks]
        start = time.process_time()
        yield
        self.seconds += time.process_time() - start
        for hook in hooks:
            hook.remove()

    def _count_images(self, _: nn.Module, arguments: tuple[Any, ...], __: Any) -> None:
        self.block_images += len(arguments[0])


def task_data(task: str, seed: int, images: int) -> DownstreamDataModule:
    """Returns the data of a task: scikit-learn's digits, or a drawn one."""
    if task == "digits":
        return DownstreamDataModule("digits", seed=seed, batch_size=50)
    # A tenth is lent to validation.
    arguments = {"task": task, "train": -(-images * 10 // 9), "test": TEST, "size": SIZE}
    return DownstreamDataModule("scenes", arguments, seed=seed, batch_size=50)


def fit(backbone: Backbone, zoo: Zoo, task: str, seed: int, way: str, images: int) -> Fit:
    """Fits a downstream task.

    Args:
        backbone: The backbone.
        zoo: The zoo.
        task: Name of the task.
        seed: Seed of the split and the order.
        way: `"exact"` or `"halving"`.
        images: How many training images the ranking looks at, at most.
    """
    data = task_data(task, seed, images)
    pl.seed_everything(seed, verbose=False)
    model = Timed(
        backbone, zoo=str(zoo.path), readout=READOUT, ranking=way, ranking_limit=images, class_names=data.class_names
    )
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    trainer = pl.Trainer(
        accelerator="cpu", devices=1, max_epochs=2, limit_val_batches=0, enable_model_summary=False, **quiet
    )
    trainer.fit(model, datamodule=data)
    accuracy = trainer.test(model, datamodule=data, verbose=False)[0]["test/accuracy"]
    assert model.ranking is not None
    passes = model.block_images / len(backbone.blocks) / data.visited("train", images)
    return Fit(passes, model.seconds, 100 * accuracy, model.ranking)


def compared(fits: Mapping[str, Fit]) -> dict[str, float]:
    """Returns what halving costs and finds beside the exact ranking."""
    exact, halving = (fits[way] for way in WAYS)
    best, chosen = exact.ranking.names()[:5], halving.ranking.names()[:8]
    errors = exact.ranking.modules
    spread = max(errors.values()) - min(errors.values())
    return {
        "images": exact.ranking.images,
        "passes exact": exact.passes,
        "passes": halving.passes,
        "time": halving.seconds / exact.seconds,
        "found": len(set(best) & set(chosen)),
        "behind": (min(errors[name] for name in chosen) - min(errors.values())) / spread,
        "accuracy exact": exact.accuracy,
        "accuracy": halving.accuracy,
    }


def show(rows: Sequence[Mapping[str, Any]], modules: int) -> None:
    """Prints the table, and the means over tasks and seeds."""
    bars = f"asked: {BARS['found']} found or {BARS['behind']:.0%} behind, accuracy within {BARS['accuracy']}"
    table = Table(title=f"{modules} modules; {bars}", title_justify="left", box=box.SIMPLE_HEAD)
    titles = ("task", "seed", "passes exact", "halving", "time", "found of 5", "behind", "accuracy exact", "halving")
    for title in titles:
        table.add_column(title, justify="left" if title == "task" else "right", no_wrap=True)
    keys = [key for key in rows[0] if key not in ("task", "seed")]
    means = {key: statistics.fmean(row[key] for row in rows) for key in keys}
    for row in (*rows, {"task": "mean", "seed": "", **means}):
        table.add_row(
            row["task"], str(row["seed"]), f"{row['passes exact']:.1f}", f"{row['passes']:.1f}", f"{row['time']:.3f}",
            f"{row['found']:.3g}", f"{row['behind']:.1%}", f"{row['accuracy exact']:.2f}", f"{row['accuracy']:.2f}",
        )  # fmt: skip
    print_whole(table)


if __name__ == "__main__":
    guarded(lambda: main(sys.argv[1:]))
