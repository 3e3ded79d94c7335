"""Models, data and trainers small enough to train in a test."""

from __future__ import annotations

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from vimlight.backbone import create_backbone
from vimlight.data import DownstreamDataModule, MidstreamDataModule
from vimlight.plugins import create_plugin
from vimlight.training.downstream import DownstreamModule
from vimlight.training.midstream import MidstreamModule
from vimlight.zoo import Zoo

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2}


def tiny_backbone(seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return create_backbone("vit_tiny_patch16_224", **VIT)


def trainer(root, epochs=1, **options):
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    common = {"accelerator": "cpu", "devices": 1, "num_sanity_val_steps": 0, "default_root_dir": root}
    return pl.Trainer(max_epochs=epochs, **{**quiet, **common, **options})


def keeping_checkpoints(root, epochs=1, **options):
    """A trainer that keeps a checkpoint of every epoch, as `epoch=N.ckpt`."""
    keeper = ModelCheckpoint(root, filename="{epoch}", save_top_k=-1)
    return trainer(root, epochs, enable_checkpointing=True, callbacks=[keeper], **options)


def scenes(task="shapes", train=40, stage=MidstreamDataModule, **options):
    arguments = {"task": task, "train": train, "test": 24, "size": 32}
    return stage("scenes", arguments, **{"batch_size": 8, **options})


def digits(shots=3, **options):
    return DownstreamDataModule("digits", shots=shots, **{"test_limit": 60, "batch_size": 64, **options})


def midstream(backbone, data, zoo="unused", plugin=None, **options):
    torch.manual_seed(3)
    plugin = plugin or {"kind": "convpass", "hidden": 2}
    return MidstreamModule(
        backbone, plugin, zoo=str(zoo), **{"kind": data.kind, "class_names": data.class_names, **options}
    )


def downstream(backbone, data, zoo, **options):
    torch.manual_seed(3)
    return DownstreamModule(backbone, zoo=str(zoo), **{"kind": data.kind, "class_names": data.class_names, **options})


def fill(path, backbone, strengths):
    """Makes a zoo of random modules, by name and by how far each is from its start."""
    zoo = Zoo(path)
    for number, (name, strength) in enumerate(strengths.items()):
        generator = torch.Generator().manual_seed(number)
        plugin = create_plugin("convpass", backbone, hidden=2)
        with torch.no_grad():
            for parameter in plugin.parameters():
                parameter.add_(strength * torch.randn(parameter.shape, generator=generator))
        zoo.add(name, plugin)
    return zoo


def learned(model):
    return {name: value.detach().clone() for name, value in model.state_dict().items()}
