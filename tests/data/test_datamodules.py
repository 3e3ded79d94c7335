from __future__ import annotations

import json
import re
import threading
from types import SimpleNamespace

import lightning.pytorch as pl
import pytest
import torch
from jsonargparse import ArgumentError, ArgumentParser
from tiny_data import Input, write_image
from torch._subclasses import FakeTensorMode

from vimlight.data import DownstreamDataModule, ImageDataModule, MidstreamDataModule
from vimlight.errors import ConfigError, DataError, UnknownNameError


class Recorder(pl.LightningModule):
    """A model that keeps the batches it is shown; `backbone` is as much of one as the data room looks at."""

    def __init__(self, spec=None):
        super().__init__()
        self.backbone = SimpleNamespace(preprocessing=spec or Input())
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen = {"train": [], "val": [], "test": [], "predict": []}

    def training_step(self, batch, index):
        self.seen["train"].append(batch)
        return self.weight.square().sum()

    def validation_step(self, batch, index):
        self.seen["val"].append(batch)

    def test_step(self, batch, index):
        self.seen["test"].append(batch)

    def predict_step(self, batch, index):
        return batch["id"]

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)

    def ids(self, split):
        return [name for batch in self.seen[split] for name in batch["id"]]

    def images(self, split):
        return {
            name: image for batch in self.seen[split] for name, image in zip(batch["id"], batch["image"], strict=True)
        }


def trainer(path, **options):
    options = {"max_epochs": 1, "num_sanity_val_steps": 0, **options}
    return pl.Trainer(
        accelerator="cpu",
        default_root_dir=path,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


def folder_data(flowers, kind=DownstreamDataModule, **options):
    return kind("image_folder", {"root": str(flowers)}, preprocessing=Input(), **options)


def test_what_the_model_needs_is_known_after_construction():
    data = DownstreamDataModule("digits", shots=5)
    assert (data.kind, data.num_classes, data.class_names[3]) == ("classification", 10, "3")


@pytest.mark.parametrize("data", [MidstreamDataModule("digits"), DownstreamDataModule("digits", shots=5, seed=3)])
def test_splits_are_disjoint(data, untouched_rng):
    ids = data.split_ids()
    assert set(ids) == {"train", "val", "test"}
    assert all(ids.values())
    assert sum(map(len, ids.values())) == len(set().union(*ids.values()))


def test_a_single_pool_is_split_and_the_test_part_stays(flowers):
    first, second = (folder_data(flowers, shots=2, seed=seed).split_ids() for seed in (0, 1))
    assert sum(map(len, first.values())) == 6 + 6 + 4
    assert first["test"] == second["test"]
    assert first["train"] != second["train"]


def test_shots_nest_and_the_test_limit_holds():
    few, many = (DownstreamDataModule("digits", shots=n, val_shots=4, test_limit=50) for n in (5, 20))
    assert set(few.split_ids()["train"]) < set(many.split_ids()["train"])
    assert few.split_ids()["val"] == many.split_ids()["val"]
    assert len(few.split_ids()["test"]) == 50
    assert few.tables["train"].targets.bincount().tolist() == [5] * 10


def test_without_shots_all_training_images_are_used():
    tables = DownstreamDataModule("digits").tables
    assert len(tables["train"]) + len(tables["val"]) == 899
    assert 80 <= len(tables["val"]) <= 100


def test_the_first_training_images_are_of_many_classes(flowers):
    targets = folder_data(flowers, MidstreamDataModule).tables["train"].targets
    assert targets[:8].unique().tolist() == [0, 1, 2]


def test_a_validation_part_of_the_data_set_is_used(flowers):
    for split in ("train", "val"):
        for name in ("aster", "rose"):
            for index in range(4):
                write_image(flowers.parent / "split" / split / name / f"{index}.png")
    root = {"root": str(flowers.parent / "split")}
    ids = DownstreamDataModule("image_folder", root, shots=2, val_shots=3).split_ids()
    assert len(ids["val"]) == 6
    assert all(name.startswith("val/") for name in ids["val"])
    assert all(name.startswith("val/") for name in MidstreamDataModule("image_folder", root).split_ids()["val"])
    for options, text in (
        ({"shots": 2, "val_shots": 5}, "class 'aster' has 4 images for validation, but 5 are needed (1 more such); s"),
        ({"shots": 5, "val_shots": 2}, "class 'aster' has 3 images, but 5 are needed (1 more such); lower shots"),
    ):
        with pytest.raises(DataError, match=re.escape(text)):
            DownstreamDataModule("image_folder", root, **options).split_ids()


def test_batches_in_a_trainer(tmp_path):
    data, model = MidstreamDataModule("digits", batch_size=100), Recorder()
    trainer(tmp_path).fit(model, data)
    batch = model.seen["train"][0]
    assert set(batch) == {"image", "target", "id", "size"}
    assert batch["size"].unique(dim=0).tolist() == [[8, 8]]
    assert batch["image"].shape == (100, 3, 16, 16)
    assert batch["image"].dtype == torch.float32
    assert batch["target"].dtype == torch.int64
    assert sorted(model.ids("train")) == sorted(data.split_ids()["train"])
    assert model.ids("train") != data.split_ids()["train"]
    assert model.ids("val") == data.split_ids()["val"]


def test_pixels_arrive_normalised(tmp_path):
    for name, colour in (("blue", (0, 0, 255)), ("red", (255, 0, 0))):
        for index in range(5):
            write_image(tmp_path / "plain" / name / f"{index}.png", colour=colour)
    data = folder_data(tmp_path / "plain", shots=1)
    images, targets = data.arrays("test")
    expected = (torch.eye(3)[[2, 0]] - torch.tensor(Input().mean)) / torch.tensor(Input().std)
    assert torch.allclose(images.mean(dim=(2, 3)), expected[targets], atol=1e-6)


def test_batches_without_a_trainer_are_those_of_the_trainer(flowers, tmp_path):
    data, model = folder_data(flowers, shots=2, batch_size=4), Recorder()
    trainer(tmp_path).test(model, data, verbose=False)
    images, targets = folder_data(flowers, shots=2, augment="strong").arrays("test")
    assert torch.equal(images, torch.cat([batch["image"] for batch in model.seen["test"]]))
    assert torch.equal(targets, torch.cat([batch["target"] for batch in model.seen["test"]]))
    with pytest.raises(UnknownNameError, match="unknown split 'tset'; did you mean 'test'"):
        next(data.batches("tset"))


def test_files_give_the_same_in_worker_processes(flowers):
    here, there = (folder_data(flowers, shots=2, num_workers=workers).arrays("train") for workers in (0, 1))
    assert torch.equal(here[0], there[0])


def test_predictions_keep_the_order(tmp_path):
    data = DownstreamDataModule("digits", shots=5, batch_size=64, test_limit=200)
    parts = trainer(tmp_path).predict(Recorder(), data)
    assert [name for part in parts for name in part] == data.split_ids()["test"]


def test_prediction_for_a_folder_without_labels(flowers, tmp_path):
    data = folder_data(flowers, shots=2, predict_folder=str(flowers / "rose"))
    parts = trainer(tmp_path).predict(Recorder(), data)
    assert [name for part in parts for name in part][:2] == ["0.png", "1.jpg"]


def test_only_training_images_are_augmented_whatever_the_batch_size(tmp_path, untouched_rng):
    seen = []
    for batch_size, augment in ((16, "light"), (25, "light"), (50, "none")):
        model = Recorder()
        data = DownstreamDataModule("digits", shots=5, batch_size=batch_size, augment=augment)
        trainer(tmp_path).fit(model, data)
        seen.append(model)
    first, second, plain = (model.images("train") for model in seen)
    assert all(torch.allclose(first[name], second[name], atol=1e-5) for name in plain)
    assert not any(torch.allclose(first[name], plain[name], atol=1e-3) for name in plain)
    assert all(torch.equal(seen[0].images("val")[name], image) for name, image in seen[2].images("val").items())


def test_order_and_augmentation_change_with_the_epoch(tmp_path):
    data, model = DownstreamDataModule("digits", shots=2, batch_size=20, augment="light"), Recorder()
    trainer(tmp_path, max_epochs=2).fit(model, data)
    first, second = model.seen["train"]
    assert first["id"] != second["id"]
    name = first["id"][0]
    assert not torch.allclose(first["image"][0], second["image"][second["id"].index(name)], atol=1e-3)


@pytest.mark.filterwarnings("ignore:You requested to overfit")
def test_lightning_may_overfit_a_few_batches(tmp_path):
    model = Recorder()
    options = {"max_epochs": 2, "overfit_batches": 1, "limit_val_batches": 0}
    trainer(tmp_path, **options).fit(model, DownstreamDataModule("digits", shots=5, batch_size=10))
    assert set(model.seen["train"][0]["id"]) == set(model.seen["train"][1]["id"])


class IdsOnDisk(Recorder):
    """Writes what each process was shown, since the test cannot look into the processes."""

    def __init__(self, folder):
        super().__init__()
        self.folder = folder

    def on_fit_end(self):
        text = json.dumps([batch["id"] for batch in self.seen["train"]])
        (self.folder / f"{self.global_rank}.json").write_text(text)


def test_two_processes_share_the_batches_of_one(tmp_path):
    with FakeTensorMode():
        # As if a model had been traced before.
        torch.ones(1)
    (tmp_path / "two").mkdir()
    one = Recorder()
    trainer(tmp_path).fit(one, DownstreamDataModule("digits", shots=4, batch_size=10))
    two = IdsOnDisk(tmp_path / "two")
    options = {"strategy": "ddp_fork", "devices": 2}
    trainer(tmp_path, **options).fit(two, DownstreamDataModule("digits", shots=4, batch_size=5))
    ranks = [json.loads((tmp_path / "two" / f"{rank}.json").read_text()) for rank in (0, 1)]
    together = [sorted(first + second) for first, second in zip(*ranks, strict=True)]
    assert together == [sorted(batch["id"]) for batch in one.seen["train"]]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_corrupt_image_stops_the_run_in_one_line(corrupt, flowers, tmp_path, workers):
    data = folder_data(flowers, MidstreamDataModule, num_workers=workers)
    with pytest.raises(DataError, match=r"^cannot read image .*rose/1.jpg: [^\n]*skip_corrupt: true$"):
        trainer(tmp_path).fit(Recorder(), data)


def test_corrupt_images_are_skipped_when_asked(corrupt, flowers, tmp_path):
    data, model = folder_data(flowers, MidstreamDataModule, skip_corrupt=True), Recorder()
    with pytest.warns(UserWarning, match="skipped 1 of 21 images"):
        trainer(tmp_path).fit(model, data)
    left = {name for ids in data.split_ids().values() for name in ids}
    assert len(left) == 20
    assert "rose/1.jpg" not in left


def test_several_labels_per_image(tmp_path):
    scenes = {"task": "attributes", "train": 300, "test": 40, "size": 32}
    data, model = DownstreamDataModule("scenes", scenes, shots=3, batch_size=16), Recorder()
    trainer(tmp_path).fit(model, data)
    targets = torch.cat([batch["target"] for batch in model.seen["train"]])
    assert data.kind == "multilabel"
    assert targets.shape[1] == data.num_classes
    assert targets.dtype == torch.int64
    assert (targets.sum(dim=0) >= 3).all()


def test_a_class_with_too_few_images_is_named(flowers):
    with pytest.raises(DataError, match=r"class 'aster' has 5 images, but 6 are needed: 3 shots"):
        folder_data(flowers, shots=3).setup("fit")


def test_image_size_overrides_the_backbone():
    data = DownstreamDataModule("digits", shots=1, image_size=(12, 20), preprocessing=Input())
    assert data.arrays("train")[0].shape == (10, 3, 12, 20)


@pytest.mark.parametrize("crop_mode", ["center", "squash", "border"])
def test_images_are_resized_as_the_model_wants_it_or_as_asked(crop_mode):
    own = Input(crop_mode=crop_mode, crop_pct=0.9)

    def prepared(task="letters", **options):
        data = DownstreamDataModule("scenes", {"task": task, "train": 60, "test": 20}, preprocessing=own, **options)
        return data.preprocessing

    assert prepared() == own
    assert prepared(image_size=(12, 20), resize="crop") == Input((12, 20), crop_mode="center", crop_pct=0.9)
    assert prepared(resize="squash") == prepared("segments") == Input(crop_mode="squash")
    assert prepared(resize="pad") == prepared("segments", resize="pad") == Input(crop_mode="border")


def test_an_unknown_way_to_resize_is_named():
    with pytest.raises(UnknownNameError, match="unknown resize 'border'; valid: crop, pad, squash"):
        DownstreamDataModule("digits", resize="border")


def test_preprocessing_must_come_from_somewhere():
    with pytest.raises(ConfigError, match="no preprocessing: pass preprocessing="):
        DownstreamDataModule("digits", shots=1).setup("fit")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1, got 0"),
        ({"shots": 0}, "shots must be at least 1, got 0"),
        ({"num_workers": -1}, "num_workers must be at least 0, got -1"),
        ({"test_limit": 0}, "test_limit must be at least 1, got 0"),
    ],
)
def test_numbers_out_of_range(options, text):
    with pytest.raises(ConfigError, match=text):
        DownstreamDataModule("digits", **options)
    with pytest.raises(ConfigError, match="val_fraction must lie between 0 and 1"):
        MidstreamDataModule("digits", val_fraction=1.5)


def parser():
    built = ArgumentParser(exit_on_error=False)
    built.add_subclass_arguments(ImageDataModule, "data")
    return built


def test_yaml_builds_a_data_module_by_its_short_name():
    settings = {"dataset": "digits", "shots": 5, "augment": "light", "image_size": 32, "seed": 2}
    config = parser().parse_object({"data": {"class_path": "DownstreamDataModule", "init_args": settings}})
    data = parser().instantiate_classes(config).data
    assert (data.shots, data.seed, data.image_size) == (5, 2, 32)
    json.dumps(config.as_dict())


@pytest.mark.parametrize("settings", [{"dataset": "digits", "shot": 5}, {"dataset": "digits", "shots": "five"}, {}])
def test_yaml_mistakes_are_found_by_the_parser(settings):
    with pytest.raises(ArgumentError):
        parser().parse_object({"data": {"class_path": "DownstreamDataModule", "init_args": settings}})


@pytest.mark.cuda
def test_batches_are_prepared_on_the_gpu():
    data = DownstreamDataModule("digits", shots=2, preprocessing=Input(interpolation="bicubic"))
    here, there = data.arrays("train"), data.arrays("train", device="cuda")
    assert there[0].is_cuda
    assert torch.allclose(here[0], there[0].cpu(), atol=1e-4)


@pytest.mark.parametrize(("source", "in_thread"), [("flowers", True), ("digits", False)])
def test_a_thread_reads_files_ahead_and_nothing_that_lies_in_memory(flowers, monkeypatch, source, in_thread):
    arguments = {"flowers": ("image_folder", {"root": str(flowers)}), "digits": ("digits",)}[source]
    data = DownstreamDataModule(*arguments, preprocessing=Input(), batch_size=4)
    table = data.tables["test"]
    readers, images = set(), type(table).images

    def noted(self, indices):
        readers.add(threading.current_thread() is threading.main_thread())
        return images(self, indices)

    plain = [table.image(row) for row in range(4)]
    monkeypatch.setattr(type(table), "images", noted)
    batch = next(iter(data.predict_dataloader()))
    assert readers == {not in_thread}
    assert batch["id"] == table.ids[:4]
    assert in_thread or torch.equal(batch["image"], torch.stack(plain))


def test_an_image_that_cannot_be_read_is_named_from_the_thread_too(corrupt):
    data = MidstreamDataModule("image_folder", {"root": str(corrupt.parent.parent)}, preprocessing=Input())
    with pytest.raises(DataError, match=r"cannot read image .*1\.jpg"):
        list(data.train_dataloader())
