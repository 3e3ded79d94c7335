"""In mixed precision, products alone are short: losses, predictions, heads in closed form and weights are not."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_kinds import SETTINGS, scene_for
from tiny_training import digits, downstream, fill, midstream, scenes, tiny_backbone, trainer

from vimlight.errors import ConfigError
from vimlight.tasks import SOLVERS
from vimlight.trainable import check_precision
from vimlight.zoo import Zoo

TYPES = {torch.bfloat16, torch.float16}


def short(tree):
    """Returns the short types that occur in tensors, lists and mappings of them."""
    if isinstance(tree, torch.Tensor):
        return {tree.dtype} & TYPES
    values = tree.values() if isinstance(tree, dict) else tree if isinstance(tree, (list, tuple)) else ()
    return set().union(*map(short, values))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", list(SETTINGS))
def test_losses_and_predictions_are_of_32_bits(kind, dtype):
    settings = SETTINGS[kind]
    data = scenes(scene_for(settings["kind"]), train=12)
    model = midstream(tiny_backbone(), data, task=settings)
    data.trainer = trainer("unused")
    data.trainer.strategy.connect(model)
    batch = next(iter(data.batches("train")))
    model.task.prepare(data.tables["train"].targets)
    with torch.no_grad(), torch.autocast("cpu", dtype):
        outputs = model(batch["image"])
        loss = model.task.loss(outputs, batch["target"])
        predictions = model.task.predictions(outputs, (32, 32))
    assert loss.dtype == torch.float32
    assert math.isfinite(loss)
    assert not short(predictions)


@pytest.mark.parametrize("head", [*SOLVERS, "linear"])
def test_heads_checkpoints_and_modules_are_of_32_bits(tmp_path, head):
    backbone = tiny_backbone()
    fill(tmp_path / "zoo", backbone, {"one": 0.2, "two": 0.3})
    data = digits(shots=4)
    model = downstream(backbone, data, tmp_path / "zoo", head=head)
    fit = trainer(tmp_path, precision="bf16-mixed")
    fit.fit(model, datamodule=data)
    fit.save_checkpoint(tmp_path / "last.ckpt")
    assert not short(torch.load(tmp_path / "last.ckpt", weights_only=True))
    module = midstream(backbone, data, tmp_path / "zoo", name="three")
    trainer(tmp_path, precision="bf16-mixed").fit(module, datamodule=data)
    assert not short(dict(Zoo(tmp_path / "zoo").load("three", backbone).state_dict()))


@pytest.mark.parametrize("precision", ["16-true", "bf16-true", "64-true"])
def test_weights_of_other_types_are_refused(tmp_path, precision):
    with pytest.raises(ConfigError, match=f"precision {precision} changes .* choose one of 32-true, bf16-mixed, 16-m"):
        check_precision(trainer(tmp_path, precision=precision))
    data = scenes(train=8)
    with pytest.raises(ConfigError, match=f"precision {precision} changes"):
        trainer(tmp_path, precision=precision).fit(midstream(tiny_backbone(), data), datamodule=data)
