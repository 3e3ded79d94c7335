"""`torchrun` on two nodes, which are two addresses of the loopback, trains what one process trains."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
import yaml
from safetensors.torch import load_file
from tiny_training import VIT, fill

from vimlight.backbone import create_backbone
from vimlight.cli import main

SCRIPT = """
import sys
import torch
from vimlight.cli import main
for config in sys.argv[1:]:
    main(["fit", "--config", config])
"""
SGD = {"class_path": "torch.optim.SGD", "init_args": {"lr": 0.002}}


def config(root, model, data, nodes, batch_size):
    """Writes a config of four steps of whole global batches, for each node its share; returns its path."""
    common = {"backbone": {"name": "vit_tiny_patch16_224", **VIT}, "zoo": "zoo", "optimizer": SGD}
    model["init_args"] |= common
    data["init_args"]["batch_size"] = batch_size // nodes
    trainer = {
        "max_epochs": 1, "limit_train_batches": 4, "limit_val_batches": 1, "accelerator": "cpu", "devices": 1,
        "num_nodes": nodes, "num_sanity_val_steps": 0, "default_root_dir": model["class_path"],
    }  # fmt: skip
    path = root / f"{model['class_path']}.yaml"
    path.write_text(yaml.safe_dump({"seed_everything": 0, "model": model, "data": data, "trainer": trainer}))
    return str(path)


def configs(root, nodes):
    """Makes a folder with a zoo of the backbone that a seed makes, and the configs of both stages."""
    root.mkdir()
    with torch.random.fork_rng():
        pl.seed_everything(0, verbose=False)
        fill(root / "zoo", create_backbone("vit_tiny_patch16_224", **VIT), {"one": 0.1, "two": 0.3})
    scenes = {"dataset": "scenes", "dataset_args": {"task": "shapes", "train": 40, "test": 8, "size": 32}}
    plugin = {"plugin": {"kind": "convpass", "hidden": 2}, "name": "module"}
    aggregate = {"modules": ["one", "two"], "aggregator": "ens_moe", "head": "linear"}
    return [
        config(
            root, {"class_path": "MidstreamModule", "init_args": plugin},
            {"class_path": "MidstreamDataModule", "init_args": scenes}, nodes, 8,
        ),
        config(
            root, {"class_path": "DownstreamModule", "init_args": aggregate},
            {"class_path": "DownstreamDataModule", "init_args": {"dataset": "digits", "shots": 4, "test_limit": 20}},
            nodes, 8,
        ),
    ]  # fmt: skip


def on_two_nodes(folder):
    """Trains both stages, one after the other, under `torchrun` on two nodes that share a folder."""
    paths = configs(folder, 2)
    (folder / "script.py").write_text(SCRIPT)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "MASTER_", "WORLD"))}
    options = {"cwd": folder, "env": {**inherited, **here}, "stderr": subprocess.PIPE, "text": True}
    launch = [
        sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1",
        "--master-addr=127.0.0.1", f"--master-port={port}",
    ]  # fmt: skip
    own = [[f"--node-rank={node}", f"--local-addr=127.0.0.{node + 1}"] for node in range(2)]
    nodes = [subprocess.Popen([*launch, *node, "script.py", *paths], **options) for node in own]
    try:
        errors = [node.communicate(timeout=300)[1] for node in nodes]
    finally:
        for node in nodes:
            # Told to end, it ends its worker.
            node.terminate()
    assert [node.returncode for node in nodes] == [0, 0], "\n".join(error[-1500:] for error in errors)


def trained(root):
    """Returns the module and what a checkpoint keeps of the aggregate."""
    last = root / "DownstreamModule" / "fit" / "version_0" / "checkpoints" / "last.ckpt"
    return load_file(root / "zoo" / "module.safetensors"), torch.load(last, weights_only=True)["state_dict"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the loopback has one address")
def test_two_nodes_train_what_one_process_trains(tmp_path, monkeypatch):
    paths = configs(tmp_path / "one", 1)
    monkeypatch.chdir(tmp_path / "one")
    for path in paths:
        main(["fit", "--config", path])
    on_two_nodes(tmp_path / "two")
    for single, distributed in zip(trained(tmp_path / "one"), trained(tmp_path / "two"), strict=True):
        assert single.keys() == distributed.keys()
        for name, value in single.items():
            torch.testing.assert_close(distributed[name], value, rtol=1e-4, atol=1e-6, msg=name)
