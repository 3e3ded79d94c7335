"""The TransMiter half of the demo: what fine-tuning taught a weak model, moved to a strong one, base to novel classes.

Everything goes through the classes that a user works with: caches are built, the weak model is fine-tuned on the base
classes, an adapter is extracted, moved and refined, and all methods are scored from caches. Epochs, mixtures and
weights are chosen on validation images of base classes; no test image decides anything.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch.optim import AdamW

from vimlight.comparison.processes import in_parallel, quiet_trainer, quietly
from vimlight.data import MidstreamDataModule
from vimlight.transmiter import LogitCache, TransMiter, align, choose_beta, fit_gap_ridge
from vimlight.transmiter.cache.build import CacheSettings, build_cache
from vimlight.transmiter.cache.data_module import CacheDataModule
from vimlight.transmiter.cache.derive import with_head
from vimlight.transmiter.cache.heads import Vocabulary
from vimlight.transmiter.judging.evaluation import evaluate
from vimlight.transmiter.judging.methods import METHODS, list_methods
from vimlight.transmiter.judging.roles import Inputs
from vimlight.transmiter.judging.summary import Run
from vimlight.transmiter.learning.extraction import ExtractionModule
from vimlight.transmiter.learning.refinement import RefinementModule
from vimlight.transmiter.models.image_text import load_model
from vimlight.transmiter.sources.data import SourceDataModule
from vimlight.transmiter.sources.module import SourceModule

__all__ = ["Adapted", "TransferPlan", "inputs_of", "run_transfer", "transfer", "tune"]

_SPLITS = ("train", "val", "test")


@dataclasses.dataclass(frozen=True)
class Adapted:
    """How the models and the adapter are trained.

    Attributes:
        method: Way of fine-tuning, or its name as `name` with its settings; the same for both models.
        lr: Its learning rate.
        epochs: Its epochs on all labels.
        shots: Labelled images of each base class for TransMiter+ and for tuning the strong model directly.
        few_epochs: Epochs on these.
        extraction_epochs: Epochs of the extraction.
        extraction_batch: Its batch size.
        extraction_loss: Its loss; see `ExtractionModule`.
        extraction_lr: Its learning rate.
        refinement_lr: Learning rate of TransMiter+.
    """

    method: str | Mapping[str, Any] = "clip_lora"
    lr: float = 2e-3
    epochs: int = 15
    shots: int = 4
    few_epochs: int = 30
    extraction_epochs: int = 60
    extraction_batch: int = 64
    extraction_loss: str = "divergence"
    extraction_lr: float = 1e-3
    refinement_lr: float = 1e-3


@dataclasses.dataclass(frozen=True)
class TransferPlan:
    """Everything that the comparison depends on.

    Attributes:
        weak: The model that is fine-tuned.
        strong: The model that the adapter is moved to.
        dataset: Name of the data source, which sets its own validation and test images apart.
        dataset_args: Its arguments but for the seed.
        held_out: Indices of the novel classes.
        num_logits: Task classes and auxiliary ones together.
        template: Prompt of the class names.
        methods: Names of the methods to compare, all by default; what none of them needs is not trained.
        seeds: Each has images, labels and trainings of its own.
        adapted: How things are trained.
        accelerator: As in Lightning's Trainer.
        precision: As in Lightning's Trainer; `"auto"` as in `precision_here`.
    """

    held_out: tuple[int, ...]
    weak: str = "vit_scenes_small"
    strong: str = "vit_scenes_base"
    dataset: str = "compositions"
    dataset_args: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    num_logits: int = 256
    template: str = "a picture of a {}."
    methods: tuple[str, ...] = dataclasses.field(default_factory=lambda: tuple(list_methods()))
    seeds: tuple[int, ...] = (0, 1, 2)
    adapted: Adapted = Adapted()
    accelerator: str = "auto"
    precision: str = "auto"

    def needs(self, role: str) -> bool:
        """Tells whether a method needs a cache or an adapter, by its role in an evaluation."""
        return any(role in (*METHODS[name].reads, *METHODS[name].needs) for name in self.methods)


def transfer(plan: TransferPlan, folder: Path) -> list[Run]:
    """Runs the comparison for all seeds.

    Args:
        plan: The plan.
        folder: Where caches and adapters go; what an earlier run left there is replaced.

    Returns:
        One run for each seed.
    """
    if folder.exists():
        shutil.rmtree(folder)
    # The weak models are tuned, which takes longest: the last process to end should not have begun with it last.
    models = [
        (f"{model}, seed {seed}", partial(_prepare, plan, model, seed, folder))
        for model in (plan.weak, plan.strong)
        for seed in plan.seeds
    ]
    in_parallel("caches and fine-tuning", models)
    moves = [(f"seed {seed}", partial(run_transfer, plan, seed, folder)) for seed in plan.seeds]
    return list(in_parallel("extraction and transfer", moves))


def _prepare(plan: TransferPlan, model: str, seed: int, folder: Path) -> None:
    """Builds the zero-shot caches of a model and fine-tunes it: the weak one on all labels, the strong one on a few."""
    place = folder / str(seed) / model
    zero_shot = _build_caches(plan, model, seed, place / "zero_shot")
    if model == plan.weak:
        tune(plan, zero_shot, seed, place / "tuned", shots=None)
    elif plan.needs("target_tuned"):
        tune(plan, zero_shot, seed, place / "tuned", shots=plan.adapted.shots)


def _build_caches(plan: TransferPlan, name: str, seed: int, folder: Path) -> dict[str, LogitCache]:
    model = load_model(name)
    if torch.cuda.is_available() and plan.accelerator != "cpu":
        model.to("cuda")
    data = MidstreamDataModule(plan.dataset, {**plan.dataset_args, "seed": seed}, batch_size=128, seed=seed)
    count = len(data.class_names)
    parts: dict[str, str | list[int | str]] = {
        "base": [index for index in range(count) if index not in plan.held_out],
        "novel": list(plan.held_out),
    }

    def build(split: str) -> LogitCache:
        vocabulary = Vocabulary(max(plan.num_logits, count))
        settings = CacheSettings(split, plan.template, vocabulary=vocabulary, partitions=parts)
        return build_cache(folder / split, model, data, settings)

    return {split: build(split) for split in _SPLITS}


def tune(plan: TransferPlan, caches: Mapping[str, LogitCache], seed: int, folder: Path, shots: int | None) -> None:
    """Fine-tunes a model on base classes and writes its caches of all splits.

    Args:
        plan: The plan.
        caches: The model's zero-shot caches by split.
        seed: The seed.
        folder: Where the caches of the fine-tuned model go.
        shots: Labelled images of each class; all of them if none is given.
    """
    adapted, data = plan.adapted, _source_data(caches, seed, folder, shots)
    pl.seed_everything(seed, verbose=False)
    model = SourceModule(
        adapted.method if isinstance(adapted.method, str) else dict(adapted.method),
        data.class_names,
        data.class_indices,
        seed=seed,
        optimizer=partial(AdamW, lr=adapted.lr, weight_decay=0.01),
    )
    epochs = adapted.epochs if shots is None else adapted.few_epochs
    _fit(plan, model, data, epochs, check_val_every_n_epoch=max(1, epochs // 3))


def _source_data(caches: Mapping[str, LogitCache], seed: int, folder: Path, shots: int | None) -> SourceDataModule:
    return SourceDataModule(
        str(caches["train"].path),
        val=str(caches["val"].path),
        also=[str(caches["test"].path)],
        out=str(folder / "{split}"),
        classes="base",
        shots=shots,
        seed=seed,
    )


def run_transfer(plan: TransferPlan, seed: int, folder: Path) -> Run:
    """Extracts, moves, refines and evaluates for one seed.

    Args:
        plan: The plan.
        seed: The seed.
        folder: Where the caches of the models are.
    """
    inputs, paths = inputs_of(plan, seed, folder)
    evaluation = evaluate(inputs, "base_to_novel", methods=plan.methods, shots=plan.adapted.shots, seed=seed)
    return Run(plan.dataset, plan.adapted.shots, seed, evaluation, inputs.describe(paths))


def inputs_of(plan: TransferPlan, seed: int, folder: Path) -> tuple[Inputs, dict[str, Path]]:
    """Extracts, moves and refines for one seed.

    Args:
        plan: The plan.
        seed: The seed.
        folder: Where the caches of the models are.

    Returns:
        Everything that an evaluation is made from, and where it lies.
    """
    place = folder / str(seed)
    caches = _open(plan, place)
    files = {}
    for role, adapter in _adapters(plan, caches, place, seed).items():
        files[role] = place / f"{role}.safetensors"
        adapter.save(files[role])
    paths = {role: cache.path for role, cache in caches.items()}
    return Inputs.open(paths, files), {**paths, **files}


def _open(plan: TransferPlan, place: Path) -> dict[str, LogitCache]:
    """Opens the caches by the roles of an evaluation."""
    folders = {
        "target": place / plan.strong / "zero_shot",
        "source": place / plan.weak / "zero_shot",
        "source_tuned": place / plan.weak / "tuned",
    }
    if plan.needs("target_tuned"):
        folders["target_tuned"] = place / plan.strong / "tuned"
    found = {role: LogitCache.open(path / "test") for role, path in folders.items()}
    for split in ("train", "val"):
        for role in ("target", "source", "source_tuned"):
            found[f"{role}_{split}"] = LogitCache.open(folders[role] / split)
    return found


def _adapters(plan: TransferPlan, caches: Mapping[str, LogitCache], place: Path, seed: int) -> dict[str, Any]:
    """Returns the adapters that a method needs by the roles of an evaluation."""
    source, target, tuned = (caches[f"{role}_train"] for role in ("source", "target", "source_tuned"))
    unmoved = _extract(plan, source, tuned, seed)
    found: dict[str, Any] = {
        "adapter": _moved(unmoved, source, target),
        "adapter_unmoved": unmoved,
        "gap_ridge": fit_gap_ridge(source, tuned, target),
    }
    if plan.needs("adapter_no_aux"):
        bare_source = _without_auxiliary(source, place / "bare_source")
        bare_target = _without_auxiliary(target, place / "bare_target")
        found["adapter_no_aux"] = _moved(_extract(plan, bare_source, tuned, seed), bare_source, bare_target)
    if plan.needs("adapter_published"):
        found["adapter_published"] = align(_extract(_published(plan), source, tuned, seed), source, target)
    if plan.needs("adapter_plus"):
        found["adapter_plus"] = _refine(plan, found["adapter"], caches, seed)
    return found


def _published(plan: TransferPlan) -> TransferPlan:
    """Returns a plan whose extraction has the published settings: loss, learning rate and batch size."""
    adapted = dataclasses.replace(plan.adapted, extraction_loss="divergence", extraction_lr=1e-3, extraction_batch=128)
    return dataclasses.replace(plan, adapted=adapted)


def _moved(adapter: TransMiter, source: LogitCache, target: LogitCache) -> TransMiter:
    return align(adapter, source, target, beta_per_sample=choose_beta(source, target))


def _extract(plan: TransferPlan, source: LogitCache, tuned: LogitCache, seed: int) -> TransMiter:
    data = CacheDataModule(str(source.path), tuned=str(tuned.path), batch_size=plan.adapted.extraction_batch, seed=seed)
    model = ExtractionModule(
        data.class_names,
        data.aux_names,
        seed=seed,
        loss=plan.adapted.extraction_loss,
        optimizer=partial(AdamW, lr=plan.adapted.extraction_lr, weight_decay=1e-3, fused=True),
    )
    _fit(plan, model, data, plan.adapted.extraction_epochs, limit_val_batches=0)
    return model.adapter.eval()


def _refine(plan: TransferPlan, adapter: TransMiter, caches: Mapping[str, LogitCache], seed: int) -> TransMiter:
    paths = [str(caches[f"target_{split}"].path) for split in ("train", "val")]
    shots = plan.adapted.shots
    data = CacheDataModule(paths[0], val=paths[1], shots=shots, classes="base", batch_size=32, seed=seed)
    start = adapter.with_basis(adapter.basis).describe(
        class_names=data.class_names, aux_names=data.aux_names, model=data.model_name
    )
    model = RefinementModule(
        start,
        data.class_names,
        data.aux_names,
        data.class_indices,
        optimizer=partial(AdamW, lr=plan.adapted.refinement_lr, weight_decay=1e-3),
    )
    _fit(plan, model, data, plan.adapted.few_epochs)
    return model.adapter.eval()


def _without_auxiliary(cache: LogitCache, path: Path) -> LogitCache:
    assert cache.head is not None
    head = cache.head.columns(torch.arange(cache.num_classes))
    return with_head(cache, path, head, aux_names=(), vocabulary={})


def _fit(
    plan: TransferPlan, model: pl.LightningModule, data: pl.LightningDataModule, epochs: int, **options: Any
) -> None:
    with quietly():
        quiet_trainer(plan, epochs, **options).fit(model, datamodule=data)
