"""The zoo of a comparison: its modules are trained, taken over from elsewhere, and given random twins."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from filelock import FileLock
from torch.optim import AdamW

from vimlight.comparison.controls import ShuffledLabels, random_like
from vimlight.comparison.fingerprints import check_fingerprint, open_backbone
from vimlight.comparison.processes import quiet_trainer, quietly
from vimlight.comparison.pulse import Pulse, PulseCallback
from vimlight.comparison.store import key_of
from vimlight.comparison.study import RANDOM, SHUFFLED, TRAINED, ModuleJob, Study
from vimlight.data import MidstreamDataModule
from vimlight.training.midstream import MidstreamModule

__all__ = ["make_ready", "train_module"]

LR, EPOCHS, BATCH_SIZE = 4e-3, 1, 32


def train_module(study: Study, job: ModuleJob, pulse: Pulse) -> None:
    """Trains a module and puts it into its zoo, unless another process has done so meanwhile.

    Args:
        study: The study.
        job: Which module.
        pulse: Whom to tell how far it is.
    """
    with _alone(study, f"{job.zoo}-{job.task.name}-{study.fingerprints[job.backbone][:8]}"):
        if study.hash_of(job) is not None:
            return
        start, zoo = time.monotonic(), study.zoo(job.backbone, job.zoo)
        _train(study, job, pulse)
        found = {"module": str(job), "sha256": zoo.card(job.task.name).sha256, "seconds": time.monotonic() - start}
        study.modules.write(study.module_key(job), found)


def _alone(study: Study, name: str) -> FileLock:
    """Returns a lock that one process holds at a time; it is given back when the process ends, however that may be."""
    folder = study.folder / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / name)


def _train(study: Study, job: ModuleJob, pulse: Pulse) -> None:
    task, plan = job.task, study.plan
    backbone = open_backbone(plan.backbones[job.backbone])
    check_fingerprint(backbone, study.fingerprints[job.backbone])
    kind = ShuffledLabels if job.zoo == SHUFFLED else MidstreamDataModule
    options: dict[str, Any] = {**task.reading(), "batch_size": task.batch_size or BATCH_SIZE, "seed": task.seed}
    data = kind(task.dataset, task.dataset_args, val_fraction=task.val_fraction, **options)
    pl.seed_everything(task.seed, verbose=False)
    model = MidstreamModule(
        backbone,
        plan.plugin_of(task),
        name=task.name,
        zoo=str(study.zoo(job.backbone, job.zoo).path),
        overwrite=True,
        readout=task.readout,
        task=task.task,
        kind=data.kind,
        class_names=data.class_names,
        prefix_cache=study.prefix_cache,
        optimizer=partial(AdamW, lr=task.lr or LR, weight_decay=task.weight_decay),
        card={"license": task.license, "text": "shuffled labels: a control" if job.zoo == SHUFFLED else ""},
    )
    with quietly():
        trainer = quiet_trainer(plan, task.epochs or EPOCHS, callbacks=[PulseCallback(pulse)])
        trainer.fit(model, datamodule=data)


def make_ready(study: Study) -> None:
    """Takes over modules from other zoos and makes the random twins, where methods ask for them.

    Args:
        study: The study, all of whose modules are trained.
    """
    for backbone in study.plan.backbones if study.plan.needs_zoo() else ():
        with _alone(study, f"ready-{study.fingerprints[backbone][:8]}"):
            zoo = study.zoo(backbone, TRAINED)
            for name, (sha256, source) in study.adopted(backbone).items():
                if name not in zoo or zoo.card(name).sha256 != sha256:
                    zoo.add_file(Path(source.path) / f"{name}.safetensors", name, overwrite=True)
            if any(method.zoo == RANDOM for method in study.plan.methods):
                _make_twins(study, backbone)


def _make_twins(study: Study, backbone: str) -> None:
    trained, twins = study.zoo(backbone, TRAINED), study.zoo(backbone, RANDOM)
    for number, (name, made_from) in enumerate(study.twins(backbone).items()):
        key = key_of({"name": name, "from": made_from})
        if study.made(key, twins, name) is None:
            module = trained.load(name, open_backbone(study.plan.backbones[backbone]))
            twins.add(name, random_like(module, seed=number), overwrite=True)
            study.modules.write(key, {"module": f"{name}, random, on {backbone}", "sha256": twins.card(name).sha256})
