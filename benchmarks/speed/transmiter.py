"""What TransMiter costs: a step of extraction, a transfer, and an image at inference.

Each cost stands beside that of a plain implementation in the same run, interleaved, so that other load on the machine
touches both alike; times are medians. The plain implementation follows the published recipe: the orthogonal basis is a
parameter behind `torch.nn.utils.parametrizations.orthogonal` with the matrix exponential. Prints a table and writes
JSON.

    python benchmarks/speed/transmiter.py --out speed.json
    python benchmarks/speed/transmiter.py --quick
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn
from torch.optim import AdamW

from vimlight.commands.output import print_table
from vimlight.transmiter import LogitCache, TransMiter, align
from vimlight.transmiter.extraction import distillation_loss

CLASSES = 10


class Published(nn.Module):
    """The published recipe, written plainly: orthogonality by the matrix exponential of a skew-symmetric matrix."""

    def __init__(self, num_logits: int) -> None:
        super().__init__()
        basis = nn.Linear(num_logits, num_logits, bias=False)
        nn.init.orthogonal_(basis.weight)
        self.basis = nn.utils.parametrizations.orthogonal(basis, orthogonal_map="matrix_exp")
        self.mlp = nn.Sequential(
            nn.LayerNorm(num_logits),
            nn.Linear(num_logits, 4 * num_logits),
            nn.GELU(),
            nn.Linear(4 * num_logits, num_logits),
        )
        nn.init.zeros_(self.mlp[3].weight)
        nn.init.zeros_(self.mlp[3].bias)

    def forward(self, logits: Tensor) -> Tensor:
        """Returns refined logits."""
        mean, std = logits.mean(dim=1, keepdim=True), logits.std(dim=1, keepdim=True)
        hidden = self.basis((logits - mean) / std)
        return ((hidden + self.mlp(hidden)) @ self.basis.weight) * std + mean


def step(model: nn.Module, logits: Tensor, tuned: Tensor) -> Callable[[], None]:
    """Returns one step of extraction."""
    optimizer = AdamW(model.parameters(), lr=1e-3, weight_decay=1e-3, fused=True)
    refine = model.task_logits if isinstance(model, TransMiter) else lambda rows: model(rows)[:, :CLASSES]

    def run() -> None:
        optimizer.zero_grad()
        distillation_loss(refine(logits), tuned, 1.0, 0.5).backward()
        optimizer.step()

    return run


def interleaved(tasks: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, tuple[float, float]]:
    """Returns the median seconds of each task, by the clock and by the processor, after one call to warm up."""
    for task in tasks.values():
        task()
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in tasks}
    for _ in range(rounds):
        for name, task in tasks.items():
            start, processor = time.perf_counter(), time.process_time()
            task()
            found[name].append((time.perf_counter() - start, time.process_time() - processor))
    return {name: tuple(map(statistics.median, zip(*times, strict=True))) for name, times in found.items()}  # type: ignore[misc]


def extraction(num_logits: int, batch: int, rounds: int) -> dict[str, tuple[float, float]]:
    """Times a step with a fixed basis, with a learned one and with the published one."""
    torch.manual_seed(0)
    logits, tuned = torch.randn(batch, num_logits), torch.randn(batch, CLASSES)
    models = {
        "fixed": TransMiter(num_logits, CLASSES, "fixed"),
        "learned": TransMiter(num_logits, CLASSES, "learned"),
        "matrix exponential": Published(num_logits),
    }
    return interleaved({name: step(model, logits, tuned) for name, model in models.items()}, rounds)


def write_logits(folder: Path, rows: int, num_logits: int) -> None:
    """Writes paired caches of random logits, block by block, so that writing takes no more memory than reading."""
    from vimlight.transmiter.cache.assembly import assemble
    from vimlight.transmiter.cache.manifest import Manifest

    names = tuple(f"class {index}" for index in range(num_logits))
    for seed, model in enumerate(("source", "target")):
        manifest = Manifest(model, "train", names[:CLASSES], names[CLASSES:], rows=rows, views=1, dtype="float32")
        rng = np.random.default_rng(seed)
        blocks = (
            rng.standard_normal((min(4096, rows - at), 1, num_logits), dtype=np.float32) for at in range(0, rows, 4096)
        )
        assemble(folder / model, manifest, blocks, [str(row) for row in range(rows)], None, None, False)


def bare_transfer(folder: Path) -> Tensor:
    """Does what no transfer can do without: reads the logits, z-scores, multiplies, decomposes."""
    source, target = (np.load(folder / model / "logits.npy", mmap_mode="r") for model in ("source", "target"))
    total = torch.zeros(source.shape[2], source.shape[2])
    for at in range(0, len(source), 4096):
        pair = [torch.from_numpy(np.array(side[at : at + 4096, 0])) for side in (target, source)]
        scores = [(rows - rows.mean(1, keepdim=True)) / rows.std(1, keepdim=True) for rows in pair]
        total += scores[0].T @ scores[1]
    left, _, right = torch.linalg.svd(total.double() + 500 * torch.eye(len(total), dtype=torch.float64))
    return left @ right


def transfer(folder: Path, num_logits: int) -> TransMiter:
    """Moves an adapter from cache to cache."""
    adapter = TransMiter(num_logits, CLASSES)
    return align(adapter, LogitCache.open(folder / "source"), LogitCache.open(folder / "target"))


def peak_memory(folder: Path, num_logits: int) -> float:
    """Returns the peak memory in megabytes of a process that does one transfer."""
    command = [sys.executable, __file__, "--measure-memory", str(folder), "--logits", str(num_logits)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()[-1])


def inference(name: str, num_logits: int, batch: int, rounds: int) -> dict[str, Any]:
    """Times the adapter beside an image encoder on one batch, and counts its multiply-adds."""
    encoder = timm.create_model(name, num_classes=0).eval()
    adapter = TransMiter(num_logits, CLASSES).eval()
    images, logits = torch.randn(batch, 3, 224, 224), torch.randn(batch, num_logits)
    with torch.inference_mode():
        times = interleaved(
            {"encoder": lambda: encoder(images), "adapter": lambda: adapter.task_logits(logits)}, rounds
        )
        whole = time_adapter_often(adapter, logits)
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter, torch.no_grad():
        adapter.task_logits(logits[:1])
    return {
        "encoder": name,
        "encoder_ms": 1000 * times["encoder"][0] / batch,
        "adapter_ms": 1000 * times["adapter"][0] / batch,
        "adapter_ms_alone": 1000 * whole / batch,
        "share": times["adapter"][0] / times["encoder"][0],
        "processor_share": times["adapter"][1] / times["encoder"][1],
        "gmac": counter.get_total_flops() / 2e9,
    }


def time_adapter_often(adapter: TransMiter, logits: Tensor) -> float:
    """Returns the median of many calls in a row, when its weights are in the cache."""
    return interleaved({"adapter": lambda: adapter.task_logits(logits)}, 20)["adapter"][0]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measures everything."""
    rows = (1_000, 2_000) if options.quick else (10_000, 100_000)
    num_logits = 64 if options.quick else options.logits
    encoder, batch = ("vit_tiny_patch16_224", 2) if options.quick else ("vit_base_patch16_224", 32)
    rounds = 2 if options.quick else options.rounds
    steps = extraction(num_logits, 128, rounds)
    found: dict[str, Any] = {
        "torch": torch.__version__, "machine": platform.machine(), "threads": torch.get_num_threads(),
        "num_logits": num_logits, "rounds": rounds,
        "step_ms": {name: 1000 * clock for name, (clock, _) in steps.items()},
        "step_processor_ms": {name: 1000 * processor for name, (_, processor) in steps.items()},
        "steps_faster": {name: steps["matrix exponential"][0] / steps[name][0] for name in ("fixed", "learned")},
        "memory_mb": {},
    }  # fmt: skip
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        for count in rows:
            folder = Path(scratch) / str(count)
            write_logits(folder, count, num_logits)
            found["memory_mb"][str(count)] = peak_memory(folder, num_logits)
        tasks = {"bare": lambda: bare_transfer(folder), "transfer": lambda: transfer(folder, num_logits)}
        times = interleaved(tasks, 1 if options.quick else 3)
    found["transfer_s"] = {name: clock for name, (clock, _) in times.items()} | {"rows": rows[-1]}
    found["transfer_ratio"] = times["transfer"][0] / times["bare"][0]
    found["transfer_processor_ratio"] = times["transfer"][1] / times["bare"][1]
    found["memory_growth_mb"] = found["memory_mb"][str(rows[1])] - found["memory_mb"][str(rows[0])]
    found["inference"] = inference(encoder, num_logits, batch, rounds)
    return found


def show(found: Mapping[str, Any]) -> None:
    """Prints the table."""
    steps, faster, image = found["step_ms"], found["steps_faster"], found["inference"]
    lines = [
        (f"step of extraction, {name}", f"{ms:.1f} ms", f"x {faster.get(name, 1):.1f}") for name, ms in steps.items()
    ]
    transfer_s, rows = found["transfer_s"], found["transfer_s"]["rows"]
    lines += [
        (f"products and SVD alone, {rows:,} rows", f"{transfer_s['bare']:.2f} s", "1.00"),
        (f"transfer, {rows:,} rows", f"{transfer_s['transfer']:.2f} s", f"{found['transfer_ratio']:.2f}"),
        *((f"peak memory, {int(count):,} rows", f"{mb:.0f} MB", "") for count, mb in found["memory_mb"].items()),
        (f"{image['encoder']}, an image", f"{image['encoder_ms']:.2f} ms", ""),
        ("adapter, an image", f"{image['adapter_ms']:.3f} ms", f"{100 * image['share']:.2f} %"),
        ("adapter, multiply-adds", f"{image['gmac']:.4f} G", ""),
    ]
    print_table(("what", "cost", "beside"), lines)


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--logits", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--scratch", help="folder with 1 GB of room for logits (default: the system's)")
    parser.add_argument("--quick", action="store_true", help="small sizes, to see that it runs")
    parser.add_argument("--out", help="file for the numbers as JSON")
    parser.add_argument("--measure-memory", metavar="DIR", help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.measure_memory:
        transfer(Path(options.measure_memory), options.logits)
        # Kilobytes on Linux, bytes on macOS.
        unit = 1024**2 if sys.platform == "darwin" else 1024
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit)
        return
    found = measure(options)
    show(found)
    if options.out:
        Path(options.out).write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
