"""One transfer: labelled images are drawn, models tuned, an adapter learnt and moved, and all methods judged."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

from vimlight.comparison.pulse import Pulse
from vimlight.comparison.transfer import TransferPlan, inputs_of, tune
from vimlight.comparison.transfers.pools import draw_caches, halves
from vimlight.comparison.transfers.study import Move, TransferStudy
from vimlight.files.atomic import write_whole
from vimlight.report.evaluation_csv import predictions_csv
from vimlight.transmiter import LogitCache
from vimlight.transmiter.judging.evaluation import Evaluation, evaluate
from vimlight.transmiter.judging.margins import Margin, margins
from vimlight.transmiter.judging.roles import Inputs
from vimlight.transmiter.judging.summary import Run

__all__ = ["move_group"]

_PROTOCOLS = ("base_to_novel", "all_classes")


def move_group(study: TransferStudy, move: Move, pulse: Pulse) -> None:
    """Makes a transfer, unless that is done, and writes its result and what every method said of every image.

    Args:
        study: The study.
        move: The transfer.
        pulse: Whom to tell how far it is.
    """
    if move.key in study.results:
        return
    folder = study.folder / "moves" / move.key
    shutil.rmtree(folder, ignore_errors=True)
    plan = _plan(study, move)
    _prepare(study, move, plan, folder, pulse)
    inputs, _ = inputs_of(plan, move.group.seed, folder)
    pulse.at(0.9)
    found = {protocol: _judged(inputs, protocol, plan, study, move) for protocol in _PROTOCOLS}
    for protocol, evaluation in found.items():
        run = Run(move.group.dataset, study.plan.shots, move.group.seed, evaluation)
        place = study.folder / "predictions" / f"{move.key}.{protocol}.csv"
        write_whole(place, predictions_csv([run]), overwrite=True)
    study.results.write(move.key, _result(move, found))
    shutil.rmtree(folder)
    pulse.step()


def _plan(study: TransferStudy, move: Move) -> TransferPlan:
    return TransferPlan(
        held_out=(),
        weak=move.group.weak,
        strong=move.group.strong,
        dataset=move.group.dataset,
        methods=tuple(study.plan.methods),
        seeds=(move.group.seed,),
        adapted=move.group.tuned,
        accelerator=study.plan.accelerator,
        precision=study.plan.precision,
    )


def _prepare(study: TransferStudy, move: Move, plan: TransferPlan, folder: Path, pulse: Pulse) -> None:
    """Draws images, and tunes the source with all of them and the target with a few."""
    seed, places = move.group.seed, Path(study.plan.pools)
    parts = halves(LogitCache.open(places / plan.weak / plan.dataset / "test").num_classes, seed)
    for number, (model, shots) in enumerate(((plan.weak, None), (plan.strong, plan.adapted.shots))):
        place = folder / str(seed) / model
        pool = places / model / plan.dataset
        caches = draw_caches(pool, parts, seed, study.plan.shots, study.plan.val_shots, place / "zero_shot")
        if shots is None or plan.needs("target_tuned"):
            tune(plan, caches, seed, place / "tuned", shots=shots)
        pulse.at(0.3 * (number + 1))


def _judged(inputs: Inputs, protocol: str, plan: TransferPlan, study: TransferStudy, move: Move) -> Evaluation:
    return evaluate(
        inputs,
        protocol,
        methods=list(study.plan.methods),
        settings=study.plan.methods,
        shots=plan.adapted.shots,
        seed=move.group.seed,
    )


def _result(move: Move, found: dict[str, Evaluation]) -> dict[str, Any]:
    apart, together = (found[protocol] for protocol in _PROTOCOLS)
    below: dict[str, dict[str, Margin]] = {}
    for evaluation in found.values():
        for name, by_group in margins(evaluation).items():
            below.setdefault(name, {}).update(by_group)
    methods = {}
    for name, result in apart.results.items():
        among_all = together.results[name]
        methods[name] = {
            "accuracies": {**result.accuracies, "all": among_all.accuracies["all"]},
            "margins": {group: dataclasses.asdict(margin) for group, margin in below[name].items()},
            "parameters": result.parameters,
            "added_flops": result.added_flops,
            "encoders": list(result.encoders),
            "labels": result.labels,
            "seconds": result.seconds_per_image,
            "choices": result.choices,
        }
    return {"transfer": str(move), "methods": methods, "left_out": apart.left_out}
