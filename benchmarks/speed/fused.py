"""What K fused plug-ins cost beside the bare backbone, in time and in operations.

Prints one line of JSON. The timings are interleaved, so that other load on the machine touches all of them alike, and
the ratios are medians over the rounds. On a CPU the seconds of processor time are given beside those of the clock: they
are steadier where the machine is shared.

    python benchmarks/speed/fused.py --rounds 15
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable

import torch
from torch.utils.flop_counter import FlopCounterMode

from vimlight.backbone import Backbone, create_backbone
from vimlight.plugins import Attachment, Plugin, Slot, create_plugin
from vimlight.plugins.base import LoopedUnits, WideUnit


def slots(plugins: list[Plugin], widen: Callable[..., WideUnit]) -> list[Slot]:
    """One slot a site, with the mean of the plug-ins."""
    unit_type = plugins[0].unit_type
    gates = torch.full((len(plugins),), 1 / len(plugins), device=next(plugins[0].parameters()).device)

    def slot(name: str) -> Slot:
        units = [plugin.unit(name) for plugin in plugins]
        wide = widen(units).to(gates.device)
        return Slot(units[0].site, unit_type.reads, unit_type.writes, lambda x: wide(x, gates))

    return [slot(name) for name in plugins[0].site_names]


def shaken(plugin: Plugin) -> Plugin:
    """Moves a plug-in away from its start, at which it adds zero."""
    with torch.no_grad():
        for parameter in plugin.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return plugin.eval()


def forms(backbone: Backbone, count: int, kind: str, hidden: int) -> dict[str, list[Slot]]:
    """The three things to compare."""
    plugins = [shaken(create_plugin(kind, backbone, hidden=hidden)) for _ in range(count)]
    return {"bare": [], "fused": slots(plugins, plugins[0].unit_type.widen), "loop": slots(plugins, LoopedUnits)}


def seconds(backbone: Backbone, images: torch.Tensor, steps: list[Slot]) -> tuple[float, float]:
    """Times one forward pass, by the clock and by the processor."""
    with Attachment(backbone, steps), torch.inference_mode():
        synchronise(images)
        start, processor = time.perf_counter(), time.process_time()
        backbone(images)
        synchronise(images)
        return time.perf_counter() - start, time.process_time() - processor


def synchronise(images: torch.Tensor) -> None:
    """Waits for the GPU, where there is one."""
    if images.is_cuda:
        torch.cuda.synchronize()


def operations(backbone: Backbone, images: torch.Tensor, steps: list[Slot]) -> int:
    """Counts the floating-point operations of one forward pass."""
    with Attachment(backbone, steps), torch.no_grad(), FlopCounterMode(display=False) as counter:
        backbone(images)
    return int(counter.get_total_flops())


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backbone", default="vit_small_patch16_224")
    parser.add_argument("--kind", default="convpass")
    parser.add_argument("--count", type=int, default=12)
    parser.add_argument("--hidden", type=int, default=8)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--loop-rounds", type=int, default=3, help="how many of the rounds time the plain loop too")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)

    backbone = create_backbone(arguments.backbone).to(arguments.device)
    compared = forms(backbone, arguments.count, arguments.kind, arguments.hidden)
    images = torch.randn(arguments.batch, 3, *backbone.preprocessing.size, device=arguments.device)
    for steps in compared.values():
        seconds(backbone, images, steps)
    rounds = []
    for index in range(arguments.rounds):
        names = compared if index < arguments.loop_rounds else ("bare", "fused")
        rounds.append({name: seconds(backbone, images, compared[name]) for name in names})

    def ratio(name: str, clock: int) -> float:
        return round(statistics.median(r[name][clock] / r["bare"][clock] for r in rounds if name in r), 4)

    flops = {name: operations(backbone, images[:1], compared[name]) for name in ("bare", "fused")}
    result = {
        **vars(arguments),
        "torch": torch.__version__,
        "machine": platform.machine(),
        "bare_ms": round(1000 * statistics.median(r["bare"][0] for r in rounds), 1),
        "fused_time_ratio": ratio("fused", 0),
        "fused_processor_ratio": ratio("fused", 1),
        "loop_time_ratio": ratio("loop", 0),
        "loop_processor_ratio": ratio("loop", 1),
        "fused_flop_ratio": round(flops["fused"] / flops["bare"], 4),
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
