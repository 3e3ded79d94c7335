"""Tasks that are served together say what each says alone."""

from __future__ import annotations

import base64
import dataclasses
import io

import numpy as np
import pytest
import torch
from numerics import assert_near
from PIL import Image
from tiny_kinds import SETTINGS
from tiny_serving import KINDS, png
from tiny_training import tiny_backbone

from vimlight.data.pictures import rgb_tensor
from vimlight.data.transforms import fit, normalise
from vimlight.errors import ConfigError, DataError, FingerprintError, PluginError
from vimlight.serving import ServedTasks, tasks
from vimlight.serving.answers import TOP
from vimlight.tasks import list_tasks
from vimlight.training.downstream import DownstreamModule

WHOLE = {"crop_mode": "squash", "crop_pct": 1.0}


def picture(**options):
    return Image.open(io.BytesIO(png(**options)))


@torch.no_grad()
def alone(model, image):
    """What `predict` makes of one image."""
    how = model.preprocessing
    if model.task.layout.spatial:
        how = dataclasses.replace(how, **WHOLE)
    pixels = rgb_tensor(image)
    batch = {"image": normalise(fit(pixels, how)[None].float() / 255, how), "id": ["image"]}
    return model.predict_step({**batch, "size": torch.tensor([pixels.shape[-2:]])}, 0)["prediction"], pixels.shape[-2:]


def numbers(content):
    """What a file of a mask or of depths holds."""
    if content.startswith(b"PK"):
        return np.load(io.BytesIO(content))["depth"]
    return np.asarray(Image.open(io.BytesIO(content))).astype(float)


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_answered_as_alone(models, served, kind):
    image = picture()
    answer = served.answers(image, files=True)[kind]
    predictions, size = alone(models[kind], image)
    task = models[kind].task
    assert (answer["kind"], answer["label"]) == (kind, task.labels(predictions)[0])
    (rows,) = task.rows(["image"], predictions, [tuple(size)])
    for each in answer.get("top", []):
        assert_near(torch.tensor(each["probability"]), torch.tensor(rows[0][f"p_{each['class']}"]))
    for name, value in answer.get("values", {}).items():
        assert_near(torch.tensor(value), torch.tensor(rows[0][name]))
    if "objects" in answer:
        assert len(answer["objects"]) == len(rows) > 0
        for found, row in zip(answer["objects"], rows, strict=True):
            assert found["label"] == row["label"]
            assert_near(torch.tensor(found["bbox"]), torch.tensor(row["bbox"]), 1e-3)
    written = task.file(predictions[0], tuple(size))
    assert ("file" in answer) == (written is not None)
    if written is not None:
        assert answer["file"]["suffix"] == written[0]
        found, wanted = numbers(base64.b64decode(answer["file"]["content"])), numbers(written[1])
        assert found.shape == wanted.shape == (40, 50)
        # Of pixels between two classes one may fall to the other.
        assert (np.abs(found - wanted) <= 1e-4 * np.abs(wanted).max()).mean() > 0.99
    assert set(answer) > {"kind", "label"}


def test_the_most_probable_classes_come_first(models, served):
    top = served.answers(picture())["classification"]["top"]
    values = [each["probability"] for each in top]
    assert len(top) == TOP < len(models["classification"].task.class_names)
    assert values == sorted(values, reverse=True)


def test_files_come_only_when_asked_for(served):
    assert not any("file" in answer for answer in served.answers(picture()).values())


def test_pictures_are_drawn_for_what_lies_in_images(models, served):
    answers = served.answers(picture())
    drawn = {name for name, answer in answers.items() if "picture" in answer}
    assert drawn == {name for name, model in models.items() if model.task.layout.spatial}
    for name in drawn:
        content = base64.b64decode(answers[name]["picture"].removeprefix("data:image/png;base64,"))
        assert Image.open(io.BytesIO(content)).size == (32, 32)


def test_models_and_images_go_to_the_device_and_answers_come_back(monkeypatch):
    model = DownstreamModule(tiny_backbone(), aggregator="none", kind="classification", class_names=["a", "b"])
    served = ServedTasks({"x": model}, "meta")
    seen = {tensor.device.type for tensor in [*model.parameters(), *model.buffers()]}

    def run(group, inputs, choice):
        seen.add(inputs.device.type)
        # What a device without numbers cannot send back.
        return {"x": torch.tensor([[1.0, 0.0]])}

    monkeypatch.setattr(tasks, "_run", run)
    assert served.answers(picture())["x"]["label"] == "a"
    assert seen == {"meta"}


def test_heads_that_read_alike_share_a_pass(create, served):
    assert served.passes == 2
    readouts = {"a": "last", "b": "grid", "c": "last"}
    together = ServedTasks({name: create(seed=1, readout=readout) for name, readout in readouts.items()})
    assert together.passes == 1
    calls = []
    handle = together.backbone.model.register_forward_hook(lambda *_: calls.append(1))
    together.answers(picture())
    handle.remove()
    assert len(calls) == 1


@pytest.mark.parametrize("kind", sorted(set(list_tasks()) - set(KINDS)))
def test_kinds_without_words_or_pictures_are_refused(create, kind):
    with pytest.raises(ConfigError, match=rf"'x' is of the kind {kind}, whose predictions have neither words nor"):
        ServedTasks({"x": create(kind)})


def test_every_kind_is_served_or_refused():
    assert set(KINDS) < set(list_tasks()) <= set(SETTINGS)


@pytest.mark.parametrize("how", ["router", "logit_ensemble"])
def test_gates_that_depend_on_the_image_are_refused(create, how):
    with pytest.raises(PluginError, match="task 'x' is aggregated by"):
        ServedTasks({"a": create(), "x": create(aggregator=how)})


def test_one_backbone_for_heads_of_every_kind(create, cnn, models):
    other = dataclasses.replace
    stranger = create("segmentation")
    stranger.aggregator.backbone = cnn
    with pytest.raises(FingerprintError, match="task 'x' has the backbone"):
        ServedTasks({"a": models["classification"], "x": stranger})
    larger = create()
    larger.prepared = other(larger.preprocessing, size=(48, 48))
    with pytest.raises(ConfigError, match=r"different sizes, \{'a': \(32, 32\), 'x': \(48, 48\)\}"):
        ServedTasks({"a": models["classification"], "x": larger})
    cropped = create("segmentation")
    cropped.prepared = other(cropped.preprocessing, crop_mode="center", crop_pct=0.9)
    with pytest.raises(ConfigError, match="task 'x' is of the kind segmentation and learnt from cropped images"):
        ServedTasks({"x": cropped})


def test_tasks_may_want_an_image_prepared_otherwise(create):
    plain, dark = create(seed=1), create(seed=1)
    dark.background, dark.prepared = "black", dataclasses.replace(dark.preprocessing, **WHOLE)
    image = picture().convert("RGBA")
    image.putalpha(0)
    found = ServedTasks({"plain": plain, "dark": dark}).answers(image)
    for name, over in (("plain", "white"), ("dark", "black")):
        expected = ServedTasks({"x": plain}).answers(Image.new("RGB", image.size, over))["x"]
        assert [each["class"] for each in found[name]["top"]] == [each["class"] for each in expected["top"]]
        for one, other in zip(found[name]["top"], expected["top"], strict=True):
            assert one["probability"] == pytest.approx(other["probability"], abs=1e-4)
    assert found["plain"]["top"] != found["dark"]["top"]


def test_numbers_that_are_none_are_said(create):
    broken = create()
    torch.nn.init.constant_(broken.head.bias, torch.nan)
    with pytest.raises(DataError, match="not finite; did the training diverge"):
        ServedTasks({"x": broken}).answers(picture())
