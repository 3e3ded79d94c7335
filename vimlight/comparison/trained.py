"""Methods that learn by gradient: through the same `DownstreamModule` that a user trains with."""

from __future__ import annotations

from functools import partial
from typing import Any

import lightning.pytorch as pl
from torch.optim import AdamW

from vimlight.comparison.bench import Bench, Fitted
from vimlight.comparison.catalogue import HINDSIGHT, TUNED, Method
from vimlight.comparison.processes import quiet_trainer, quietly
from vimlight.comparison.pulse import PulseCallback
from vimlight.comparison.tuning import TunedAlone
from vimlight.training.downstream import DownstreamModule

__all__ = ["fit_trained"]


def fit_trained(bench: Bench, method: Method) -> Fitted:
    """Fits and tests a method; in hindsight, the bare backbone, each module by itself and their mean.

    Args:
        bench: Where.
        method: Which.
    """
    names = bench.names(method)
    if method.how != HINDSIGHT:
        return _fit(bench, method, method.how, names)
    together = [names] if len(names) > 1 else []
    mixed = [_fit(bench, method, "uniform", chosen) for chosen in [*([name] for name in names), *together]]
    tested = [_fit(bench, method, "none", []), *mixed]
    best = max if bench.task.mode == "max" else min
    return best(tested, key=lambda fitted: fitted.scores[bench.task.monitor])


def _fit(bench: Bench, method: Method, how: str, names: list[str]) -> Fitted:
    task, plan = bench.group.task, bench.study.plan
    pl.seed_everything(bench.group.seed, verbose=False)
    model = _model(bench, method, how, names)
    rankings: dict[str, Any] = bench.memory.once(_about_ranking(bench, method, names), dict)
    model.known_ranking = rankings.get("ranking")
    # Nothing takes steps where neither gates nor head do.
    epochs = (task.epochs or method.epochs) if model.trainable_parameters() else 1
    with quietly():
        limits: dict[str, Any] = {"max_steps": method.steps or -1, "limit_val_batches": 0}
        quiet_trainer(plan, epochs, callbacks=[PulseCallback(bench.pulse)], **limits).fit(model, datamodule=bench.data)
        rankings["ranking"] = model.ranking
        found = quiet_trainer(plan, 1).test(model, datamodule=bench.data, verbose=False)[0]
    scores = {name.removeprefix("test/"): float(value) for name, value in found.items()}
    return Fitted(scores, model.aggregator, model.head, names, gates=bool(names))


def _about_ranking(bench: Bench, method: Method, names: list[str]) -> tuple[Any, ...]:
    """Returns all that the ranking of a method's modules depends on, which several methods ask for."""
    task, data = bench.group.task, bench.study.data["downstream", bench.group.task.name]
    modules = tuple((name, bench.hashes[method.zoo][name]) for name in names)
    labelled = tuple(bench.data.tables["train"].ids)
    return ("ranking", str(task), data, labelled, bench.readout(method), modules)


def _model(bench: Bench, method: Method, how: str, names: list[str]) -> DownstreamModule:
    task = bench.group.task
    extra = bench.study.plan.plugin if method.extra_module is True else method.extra_module or None
    options: dict[str, Any] = {
        "head": task.head,
        "readout": bench.readout(method),
        "task": task.task,
        "kind": bench.data.kind,
        "class_names": bench.data.class_names,
        "prefix_cache": bench.study.prefix_cache,
        "optimizer": partial(AdamW, lr=task.lr or method.lr),
    }
    if how in TUNED:
        return TunedAlone(bench.backbone, how, dict(method.settings), **options)
    return DownstreamModule(
        bench.backbone,
        zoo=str(bench.zoo(method).path),
        modules=names,
        aggregator={"how": how, **method.settings},
        start=method.start,
        extra_module=extra,
        **options,
    )
