"""Fine-tuning from caches to caches: samples, epochs, what is written, and what is refused beforehand."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from tiny_tuning import EVERY, build, tune

from vimlight.data import few_shot
from vimlight.errors import CacheError, ConfigError, DataError, UnknownNameError
from vimlight.transmiter import LogitCache, check_paired, write_cache
from vimlight.transmiter.sources.data import SourceDataModule
from vimlight.transmiter.sources.module import SourceModule

OUT = "caches/tuned/{split}"


@EVERY
def test_the_tuned_caches_show_the_same_images(shapes, name):
    module, _ = tune(name, val="caches/weak/val", also=["caches/weak/test"], out=OUT, epochs=1)
    for split in ("train", "val", "test"):
        zero_shot, tuned = LogitCache.open(shapes / split), LogitCache.open(f"caches/tuned/{split}")
        check_paired(zero_shot, tuned, task_only=True)
        assert tuned.num_views == zero_shot.num_views
        assert tuned.aux_names == ()
        assert tuned.partitions == zero_shot.partitions
        assert tuned.model == f"vit_scenes_small+{name}"
        assert tuned.verify() == []
        facts = tuned.manifest.data["tuning"]
        assert facts["method"] == name
        assert facts["zero_shot"] == zero_shot.hash
        assert facts["epoch_chosen"] == "best accuracy on 24 validation images"
        assert tuned.manifest.model_arguments == {}, "whoever loaded that model would get the one that was not tuned"
        assert (tuned.manifest.weights == zero_shot.manifest.weights) == (name != "clip_lora")
    assert module.best is not None


@EVERY
@torch.no_grad()
def test_every_view_goes_through_the_tuned_model(shapes, name):
    module, _ = tune(name, out=OUT, module={"optimizer": lambda p: torch.optim.SGD(p, lr=0.5)})
    zero_shot, tuned = LogitCache.open(shapes / "train"), LogitCache.open("caches/tuned/train")
    assert zero_shot.num_views == 2
    tuning = module.tuning.eval()
    for view in (0, 1):
        if module.reads == "features":
            expected = tuning(zero_shot.features(view=view))
        else:
            from vimlight.transmiter.cache.images import FittedTable
            from vimlight.transmiter.sources.images import image_table, views_of

            table, views = image_table(zero_shot), views_of(zero_shot)
            images = FittedTable(table, views.image_input).images(range(len(table)))
            expected = tuning(list(views.prepare(images, views.draws(len(table))))[view])
        torch.testing.assert_close(tuned.logits(view=view), expected, atol=0.05, rtol=0.01)
    assert not torch.allclose(tuned.logits(), zero_shot.logits(columns=slice(0, 12)), atol=0.05)


def test_the_best_epoch_on_validation_images_is_kept(shapes):
    class Watched(SourceModule):
        """Writes down the accuracy of every epoch."""

        seen: ClassVar[list] = []

        def on_validation_end(self):
            super().on_validation_end()
            if not self.trainer.sanity_checking:
                self.seen.append(float(self.trainer.callback_metrics["val/accuracy"]))

    import lightning.pytorch as pl

    data = SourceDataModule("caches/weak/train", val="caches/weak/val", out=OUT, batch_size=12)
    # Steps as large as these do more harm than good sooner or later.
    module = Watched("taskres", data.class_names, optimizer=lambda p: torch.optim.SGD(p, lr=30.0))
    silent = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    pl.Trainer(max_epochs=8, accelerator="cpu", **silent).fit(module, datamodule=data)
    cache = LogitCache.open("caches/tuned/val")
    reached = (cache.logits().argmax(dim=1) == cache.labels).float().mean().item()
    assert reached == pytest.approx(max(module.seen), abs=1e-6)
    assert module.best.epoch == module.seen.index(max(module.seen)) + 1
    assert cache.manifest.data["tuning"]["epoch"] == module.best.epoch
    assert len(set(module.seen)) > 1


def test_without_validation_images_it_is_the_last_epoch(shapes):
    module, _ = tune("linear_probe", out=OUT, epochs=3)
    facts = LogitCache.open("caches/tuned/train").manifest.data["tuning"]
    assert (facts["epoch"], facts["epoch_chosen"]) == (3, "last")
    assert module.best is None


@pytest.mark.parametrize("name", ["taskres", "clip_lora"])
def test_only_base_classes_are_learned_from(shapes, name):
    module, data = tune(name, classes="base", out=OUT, epochs=1)
    assert data.class_indices == [0, 1, 2]
    assert set(data.caches["train"].labels[data.rows["train"]].tolist()) == {0, 1, 2}
    zero_shot, tuned = LogitCache.open(shapes / "train"), LogitCache.open("caches/tuned/train")
    assert tuned.class_names == zero_shot.class_names, "all classes have columns, tuned on or not"
    assert tuned.manifest.data["tuning"]["classes"] == [0, 1, 2]
    if name == "taskres":
        change = (tuned.logits() - zero_shot.logits(columns=slice(0, 12))).abs().amax(dim=0)
        assert (change[:3] > 1e-3).all()
        assert (change[3:] < 1e-3).all(), "text features of classes that were not tuned on moved"
    batch = {"input": torch.randn(2, *((3, 64, 64) if name == "clip_lora" else (128,)))}
    assert module(batch["input"])[:, 3:].isinf().all(), "they are no candidates while the others are learned"


def test_shots_are_a_sample_of_each_class(shapes):
    data = SourceDataModule("caches/weak/train", shots=1, classes=[1, 4, 7], seed=3)
    labels = data.caches["train"].labels
    rows = torch.isin(labels, torch.tensor([1, 4, 7])).nonzero().flatten()
    expected = rows[few_shot(torch.searchsorted(torch.tensor([1, 4, 7]), labels[rows]), 1, 3, 3).train]
    assert torch.equal(data.rows["train"], expected)
    assert sorted(labels[data.rows["train"]].tolist()) == [1, 4, 7]
    with pytest.raises(DataError, match="has 2 images, but 3 are needed"):
        _ = SourceDataModule("caches/weak/train", shots=3).rows


def test_features_come_in_views_that_the_epoch_draws(shapes):
    data = SourceDataModule("caches/weak/train", batch_size=100)
    cache = data.caches["train"]
    (batch,) = data.train_dataloader()
    views = set()
    for values, name, target in zip(batch["input"], batch["id"], batch["target"], strict=True):
        row = list(cache.ids).index(name)
        assert cache.labels[row] == target
        views |= {view for view in (0, 1) if torch.equal(values, cache.features([row], view=view)[0])}
    assert views == {0, 1}


def test_training_images_are_augmented_and_validation_images_are_not(shapes):
    module, data = tune("clip_lora", val="caches/weak/val", augment="light", epochs=1)
    trainer = module.trainer
    (batch,) = [b for b, _ in zip(data.train_dataloader(), range(1), strict=False)]
    raw = batch["image"].clone()
    trainer.training = True
    changed = data.on_after_batch_transfer(dict(batch), 0)["input"]
    trainer.training = False
    plain = data.on_after_batch_transfer(dict(batch), 0)["input"]
    torch.testing.assert_close(plain, (raw.float() / 255 - 0.5) / 0.3)
    assert not torch.allclose(changed, plain, atol=0.1)


def test_the_same_seed_gives_the_same_bytes(shapes):
    for name in ("one", "two"):
        tune("clip_adapter", out=f"caches/{name}/{{split}}")
    assert LogitCache.open("caches/one/train").hash == LogitCache.open("caches/two/train").hash


@pytest.mark.slow
def test_fine_tuning_makes_the_weak_model_better(tmp_path, monkeypatch):
    """A tenth of what `vimlight fit` would do on drawn shapes, judged on images that nothing was learned from."""
    from tiny_world import build as build_world

    paths = build_world(tmp_path / "world", rows={"": 600, "_train": 96, "_val": 60})
    before = LogitCache.open(paths["source"])
    tune(
        "linear_probe", train=str(paths["source_train"]), val=str(paths["source_val"]), also=[str(paths["source"])],
        out=str(tmp_path / "tuned-{split}"), epochs=15, module={"optimizer": lambda p: torch.optim.AdamW(p, lr=0.02)},
    )  # fmt: skip
    after = LogitCache.open(tmp_path / "tuned-test")
    right = [(c.logits(columns=slice(0, 6)).argmax(dim=1) == c.labels).float().mean().item() for c in (before, after)]
    assert right[1] > right[0] + 0.05


def imported(path, cache, **changes):
    options = {
        "features": cache.features(), "head": cache.head, "class_names": cache.class_names, "labels": cache.labels,
        "ids": list(cache.ids), "split": cache.split, "model": cache.model, **changes,
    }  # fmt: skip
    return write_cache(path, **{key: value for key, value in options.items() if value is not None})


MISTAKES = {
    "one name": ({"val": "caches/weak/val", "out": "caches/tuned"}, ConfigError, "2 caches would be 'caches/tuned'"),
    "taken": ({"out": "caches/weak/{split}"}, CacheError, "'caches/weak/train' exists; choose another directory"),
    "other model": ({"also": ["other"], "out": OUT}, ConfigError, "'other' is of the model 'another', not"),
    "bare logits": ({"train": "bare"}, DataError, "cache 'bare' holds bare logits; fine-tuning needs features"),
    "no labels": ({"train": "unlabelled"}, DataError, "has no labels, and train needs them"),
    "no cache": ({"train": "caches/weak/trian"}, CacheError, "does not exist; did you mean 'caches/weak/train'"),
    "partition": ({"classes": "bse"}, ConfigError, "no partition 'bse'; did you mean 'base'"),
    "augmentation": ({"augment": "lite"}, UnknownNameError, "unknown augmentation 'lite'; did you mean 'light'"),
    "shots": ({"shots": 0}, ConfigError, "shots must be at least 1, got 0"),
    "validation of other classes": ({"val": "other classes"}, ConfigError, "the classes of 'other classes' are not"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", list(MISTAKES))
def test_mistakes_show_before_anything_is_learned_or_written(shapes, mistake):
    data, error, message = MISTAKES[mistake]
    cache = LogitCache.open(shapes / "train")
    imported("other", cache, model="another", split="other")
    imported("bare", cache, features=None, head=None, logits=cache.logits())
    imported("unlabelled", cache, labels=None)
    imported("other classes", cache, class_names=[f"class {number}" for number in range(12)])
    before = set(Path().rglob("*"))
    with pytest.raises(error, match=message):
        tune("taskres", **data)
    assert set(Path().rglob("*")) == before


def test_an_imported_cache_has_features_but_no_images(shapes):
    imported("imported", LogitCache.open(shapes / "train"))
    tune("taskres", train="imported", out="tuned-{split}", epochs=1)
    assert LogitCache.open("tuned-train").num_classes == 12
    with pytest.raises(ConfigError, match="cache 'imported' does not say where its images are; build it with"):
        tune("clip_lora", train="imported", out="lora-{split}")


def test_images_that_are_others_by_now_are_refused(shapes):
    import json

    manifest = json.loads((shapes / "train" / "manifest.json").read_text())
    manifest["data"]["seed"] = 5
    from vimlight.transmiter.cache.manifest import Manifest

    changed = LogitCache.open(shapes / "train").manifest.replace(data=manifest["data"])
    (shapes / "train" / "manifest.json").write_text(changed.to_json())
    assert Manifest.from_json(changed.to_json()) == changed
    with pytest.raises(DataError, match=r"the images of cache .* are not those that its data set 'scenes' has now"):
        tune("clip_lora", out=OUT)


def test_tuned_caches_are_replaced_only_when_asked(shapes):
    tune("taskres", out=OUT, epochs=1)
    first = LogitCache.open("caches/tuned/train").hash
    with pytest.raises(CacheError, match="exists"):
        tune("linear_probe", out=OUT)
    assert LogitCache.open("caches/tuned/train").hash == first
    tune("linear_probe", out=OUT, overwrite=True, epochs=1)
    assert LogitCache.open("caches/tuned/train").model == "vit_scenes_small+linear_probe"


def test_another_data_module_is_refused(shapes):
    import lightning.pytorch as pl

    from vimlight.transmiter.cache.data_module import CacheDataModule

    data = CacheDataModule("caches/weak/train")
    module = SourceModule("taskres", data.class_names)
    with pytest.raises(ConfigError, match="fine-tuning a source needs a SourceDataModule"):
        pl.Trainer(max_epochs=1, accelerator="cpu", logger=False).fit(module, datamodule=data)


def test_a_trial_run_writes_nothing(shapes):
    tune("taskres", out=OUT, trainer={"fast_dev_run": True})
    assert not Path("caches/tuned").exists()


def test_a_tuned_cache_says_of_another_what_it_is(shapes):
    """A cache of a fine-tuned model, tuned again, still is of the same images."""
    tune("taskres", out=OUT, epochs=1)
    tune("clip_adapter", train="caches/tuned/train", out="caches/again/{split}", epochs=1)
    check_paired(LogitCache.open(shapes / "train"), LogitCache.open("caches/again/train"), task_only=True)


@pytest.mark.slow
def test_the_strong_model_of_the_pair_can_be_tuned_as_well(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build(tmp_path / "caches" / "strong", "vit_scenes_base")
    tune("coop", train="caches/strong/train", out=OUT, epochs=1)
    assert LogitCache.open("caches/tuned/train").model == "vit_scenes_base+coop"
    shutil.rmtree("caches")


@pytest.mark.cuda
@EVERY
def test_on_a_gpu(shapes, name):
    tune(name, out=OUT, trainer={"accelerator": "gpu", "devices": 1, "precision": "bf16-mixed"})
    check_paired(LogitCache.open(shapes / "train"), LogitCache.open("caches/tuned/train"), task_only=True)
