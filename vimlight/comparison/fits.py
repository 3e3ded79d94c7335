"""A method is fitted to a few labelled images and tested: by gradient, or in closed form on remembered features."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import lru_cache
from itertools import groupby
from operator import attrgetter
from typing import Any

from vimlight.comparison.bench import Bench, Fitted
from vimlight.comparison.closed import fit_closed
from vimlight.comparison.costs import cost_of, flops_of
from vimlight.comparison.data import downstream_data
from vimlight.comparison.fingerprints import check_fingerprint, open_backbone
from vimlight.comparison.memory import FeatureMemory
from vimlight.comparison.processes import precision_here
from vimlight.comparison.pulse import Pulse
from vimlight.comparison.study import Fit, Group, Study
from vimlight.comparison.trained import fit_trained

__all__ = ["fit_group"]


@lru_cache(maxsize=1)
def _memory(fingerprint: str, mixed: bool) -> FeatureMemory:
    """Returns what this process remembers of a backbone."""
    return FeatureMemory(mixed)


def fit_group(study: Study, fits: Sequence[Fit], pulse: Pulse) -> None:
    """Fits methods, group by group, each result a file of its own; those that are there already are left out.

    Args:
        study: The study.
        fits: The fits.
        pulse: Whom to tell how far it is.
    """
    for group, members in groupby(fits, key=attrgetter("group")):
        bench: Bench | None = None
        for fit in members:
            if fit.key not in study.results:
                bench = bench or _open(study, group, pulse)
                study.results.write(fit.key, _result(bench, fit))
            pulse.step()


def _open(study: Study, group: Group, pulse: Pulse) -> Bench:
    backbone = open_backbone(study.plan.backbones[group.backbone])
    check_fingerprint(backbone, study.fingerprints[group.backbone])
    mixed = precision_here(study.plan.precision) != "32-true"
    data = downstream_data(group.task, group.shots, group.seed, backbone)
    return Bench(study, group, backbone, data, _memory(backbone.fingerprint, mixed), pulse)


def _result(bench: Bench, fit: Fit) -> dict[str, Any]:
    start, method, task = time.monotonic(), fit.method, bench.task
    fitted = fit_closed(bench, method) if bench.is_closed(method) else fit_trained(bench, method)
    seconds = time.monotonic() - start
    backbone = bench.backbone
    bare = bench.memory.once(("FLOPs", backbone.preprocessing.size), lambda: flops_of(backbone, backbone))
    parameters, flops = cost_of(fitted, backbone, bare)
    return {
        "method": method.label,
        "task": fit.group.task.name,
        "kind": task.kind,
        "metric": task.monitor,
        "mode": task.mode,
        "value": fitted.scores[task.monitor],
        "scores": dict(fitted.scores),
        "modules": fitted.modules,
        "parameters": parameters,
        "flops": flops,
        "seconds": round(seconds, 2),
        "gates": _gates(fitted),
    }


def _gates(fitted: Fitted) -> dict[str, Any] | None:
    """Returns the gates that were learnt, where there are any that do not depend on the image."""
    if not fitted.gates or fitted.aggregator.gates.dim() != 2:
        return None
    values = [[round(value, 5) for value in row] for row in fitted.aggregator.gates.detach().cpu().tolist()]
    return {"values": values, "places": fitted.aggregator.places, "names": fitted.aggregator.names}
