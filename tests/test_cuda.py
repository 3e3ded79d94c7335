"""What only a GPU shows: devices, mixed precision, pinned memory, compiled passes, and NCCL between one or two GPUs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file
from tiny_training import VIT, digits, downstream, fill, midstream, scenes, tiny_backbone, trainer

from vimlight.serving import ServedTasks
from vimlight.zoo import Zoo

pytestmark = pytest.mark.cuda
DEVICE, ACCELERATOR = "cuda", "gpu"


def fitted(root, precision="32-true", **options):
    data, backbone = scenes(), tiny_backbone()
    model = midstream(backbone, data, root / "zoo", name="module", **options)
    fit = trainer(root, accelerator=ACCELERATOR, precision=precision)
    fit.fit(model, datamodule=data)
    return fit, model, data


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_a_module_that_a_gpu_trained_is_read_anywhere(tmp_path, precision):
    fit, model, data = fitted(tmp_path, precision)
    assert fit.strategy.root_device.type == DEVICE
    tested = fit.test(model, datamodule=data, verbose=False)[0]
    loaded = Zoo(tmp_path / "zoo").load("module", tiny_backbone())
    for name, value in loaded.named_parameters():
        assert value.device.type == "cpu"
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, model.plugin.get_parameter(name).cpu(), rtol=0, atol=0)
    here = trainer(tmp_path).test(model.cpu(), datamodule=data, verbose=False)[0]
    assert tested["test/loss"] == pytest.approx(here["test/loss"], rel=1e-3 if precision == "32-true" else 0.1)


@pytest.mark.slow
def test_a_compiled_training_is_the_plain_one(tmp_path):
    plain, compiled = (fitted(tmp_path / str(flag), compile=flag)[1] for flag in (False, True))
    for name, value in plain.plugin.named_parameters():
        torch.testing.assert_close(compiled.plugin.get_parameter(name), value, rtol=1e-3, atol=1e-4)


def test_batches_wait_in_pinned_memory(tmp_path, monkeypatch):
    pinned, data = [], scenes()
    taken = type(data).on_before_batch_transfer

    def noted(self, batch, index):
        pinned.append(batch["image"].is_pinned())
        return taken(self, batch, index)

    monkeypatch.setattr(type(data), "on_before_batch_transfer", noted)
    model = midstream(tiny_backbone(), data, tmp_path / "zoo")
    trainer(tmp_path, accelerator=ACCELERATOR, limit_train_batches=2, limit_val_batches=1).fit(model, datamodule=data)
    assert pinned == [True] * len(pinned)
    assert pinned


def test_what_a_gpu_serves_is_what_the_processor_answers(tmp_path):
    data, answers = digits(), []
    image = Image.fromarray(torch.arange(32 * 32 * 3, dtype=torch.uint8).reshape(32, 32, 3).numpy())
    for device in ("cpu", DEVICE):
        zoo = fill(tmp_path / device, tiny_backbone(), {"one": 0.1})
        served = ServedTasks({"digits": downstream(tiny_backbone(), data, zoo.path)}, device)
        assert served.backbone.model.patch_embed.proj.weight.device.type == device
        answers.append({each["class"]: each["probability"] for each in served.answers(image)["digits"]["top"]})
    assert answers[1] == pytest.approx(answers[0], abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2])
def test_processes_with_nccl_train_what_one_does_on_the_processor(tmp_path, count):
    if torch.cuda.device_count() < count:
        pytest.skip(f"{count} GPUs are needed")
    plain = trained(tmp_path / "cpu", "cpu", 1)
    for name, value in trained(tmp_path / "gpu", ACCELERATOR, count).items():
        torch.testing.assert_close(value, plain[name], rtol=1e-2, atol=1e-4, msg=name)


def trained(root, accelerator, processes):
    """Trains four steps of eight images under `torchrun`; returns the module's tensors."""
    root.mkdir()
    drawn = {"task": "shapes", "train": 40, "test": 8, "size": 32}
    model = {
        "backbone": {"name": "vit_tiny_patch16_224", **VIT}, "name": "module",
        "optimizer": {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.002}},
    }  # fmt: skip
    content = {
        "seed_everything": 0,
        "model": {"class_path": "MidstreamModule", "init_args": model},
        "data": {
            "class_path": "MidstreamDataModule",
            "init_args": {"dataset": "scenes", "dataset_args": drawn, "batch_size": 8 // processes},
        },
        "trainer": {
            "max_epochs": 1, "limit_train_batches": 4, "limit_val_batches": 1, "accelerator": accelerator,
            "devices": processes, "num_sanity_val_steps": 0, "strategy": "ddp",
        },
    }  # fmt: skip
    (root / "config.yaml").write_text(yaml.safe_dump(content))
    launch = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}", "--module", "vimlight"]
    own = {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "MASTER_", "WORLD"))}
    command = [sys.executable, "-W", "ignore", *launch, "fit", "--config", "config.yaml"]
    done = subprocess.run(command, cwd=root, env={**inherited, **own}, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return load_file(root / "zoo" / "module.safetensors")
