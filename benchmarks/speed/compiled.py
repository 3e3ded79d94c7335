"""`torch.compile` of a zoo: its speed, what compiling takes, and that other gates and modules do not compile anew."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from typing import Any

import timm
import torch
from torch._dynamo.utils import counters

from benchmarks.bench import BENCHMARKS, Bench
from benchmarks.models import backbone_for, images_for, modules_for
from benchmarks.results import Comparison, Figure
from benchmarks.speed.alternatives import PeftZoo
from benchmarks.speed.fused import inference
from vimlight.aggregation import aggregate


@BENCHMARKS.register("compiled")
def compiled(
    bench: Bench,
    *,
    backbone: str,
    kind: str,
    settings: dict[str, Any],
    count: int,
    rank: int,
    batch: int,
    rounds: int,
    backend: str,
) -> Iterator[Comparison | Figure]:
    """Compares a zoo with itself compiled, and the bare backbone with itself compiled.

    Args:
        bench: Where.
        backbone: Name of a timm model.
        kind: Type of the modules.
        settings: Their settings.
        count: K.
        rank: Rank of the LoRA of peft that runs beside them, if that is installed.
        batch: Images at a time.
        rounds: How often.
        backend: Of `torch.compile`.
    """
    bare = backbone_for(bench, backbone)
    images = images_for(bare, batch)
    model = aggregate(bare, modules_for(bare, count, kind, **settings)).eval()
    torch._dynamo.reset()
    models = {
        "bare": bare,
        "fused": model,
        "bare, compiled": torch.compile(bare, backend=backend),
        "fused, compiled": torch.compile(model, backend=backend),
    }
    if find_spec("peft"):
        peft = PeftZoo(timm.create_model(backbone, num_classes=0).eval().to(bench.device), 1, rank).model
        models |= {"peft, one LoRA": peft, "peft, one LoRA, compiled": torch.compile(peft, backend=backend)}
    tasks = {name: inference(bench, forward, images) for name, forward in models.items()}
    for name in (name for name in models if name.endswith("compiled")):
        seconds, _ = bench.seconds(tasks[name])
        yield bench.figure(f"first call of {name}", seconds, "s")
    title = f"{backbone}, {count} x {kind}, batch {batch}"
    yield bench.compare(title, tasks, rounds=rounds, count=False)
    before = counters["stats"]["unique_graphs"]
    with torch.no_grad():
        model.gating.logits.normal_()  # type: ignore[operator, union-attr]  # logits of ens_moe
    tasks["fused, compiled"]()
    yield bench.figure("graphs compiled anew for other gates", counters["stats"]["unique_graphs"] - before, at_most=0)
    with torch.no_grad():
        for buffer in model.wides.buffers():
            buffer.normal_(std=0.02)
    tasks["fused, compiled"]()
    yield bench.figure("graphs compiled anew for other modules", counters["stats"]["unique_graphs"] - before, at_most=0)
