"""`torchrun` on two nodes, which are two addresses of the loopback, trains what one process trains.

They share a folder or have one each. A node that lacks something is not waited for: both say what it is.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
import yaml
from processes import Forked, meeting_place
from safetensors.torch import load_file
from tiny_training import VIT, fill
from torch.distributed import TCPStore

from vimlight.backbone import create_backbone
from vimlight.cli import main
from vimlight.commands.meeting import Meeting
from vimlight.errors import ConfigError
from vimlight.files.checkpoint_facts import CHECKPOINT_VERSION

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
    # The first block's tokens are kept, on each node in its own folder.
    plugin = {
        "plugin": {"kind": "convpass", "hidden": 2, "blocks": "last:1"}, "name": "module",
        "prefix_cache": {"dir": "cache", "dtype": "float32"},
    }  # fmt: skip
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


def on_two_nodes(folders):
    """Trains both stages, one after the other, under `torchrun` on two nodes in their folders."""
    for folder in set(folders):
        names = [Path(path).name for path in configs(folder, 2)]
        (folder / "script.py").write_text(SCRIPT)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = {"PYTHONPATH": str(Path(__file__).parents[1]), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("PYTEST", "MASTER_", "WORLD"))}
    options = {"env": {**inherited, **here}, "stderr": subprocess.PIPE, "text": True}
    launch = [
        sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1",
        "--master-addr=127.0.0.1", f"--master-port={port}",
    ]  # fmt: skip
    own = [[f"--node-rank={node}", f"--local-addr=127.0.0.{node + 1}"] for node in range(2)]
    nodes = [
        subprocess.Popen([*launch, *node, "script.py", *names], cwd=folder, **options)
        for node, folder in zip(own, folders, strict=True)
    ]
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


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """What one process trains."""
    folder = tmp_path_factory.mktemp("single") / "one"
    paths = configs(folder, 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for path in paths:
            main(["fit", "--config", path])
    return trained(folder)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the loopback has one address")
@pytest.mark.parametrize("folders", ["one", "two"])
def test_two_nodes_train_what_one_process_trains(tmp_path, single, folders):
    first, second = tmp_path / "first", tmp_path / ("first" if folders == "one" else "second")
    on_two_nodes([first, second])
    for alone, distributed in zip(single, trained(first), strict=True):
        assert alone.keys() == distributed.keys()
        for name, value in alone.items():
            torch.testing.assert_close(distributed[name], value, rtol=1e-4, atol=1e-6, msg=name)
    assert all(list((folder / "cache").rglob("*.safetensors")) for folder in (first, second))
    if folders == "two":
        assert not (second / "MidstreamModule").exists()
        assert not (second / "zoo" / "module.safetensors").exists()


def launched(folders, *words):
    """Runs a command in processes as `torchrun` starts them, one a folder; returns codes, what they said, seconds."""
    shared = {**meeting_place(), "WORLD_SIZE": str(len(folders)), "TORCHELASTIC_RUN_ID": "none"}
    shared |= {"TORCHELASTIC_USE_AGENT_STORE": "True", "GLOO_SOCKET_IFNAME": "lo"}
    # That of the first node's agent, which lives for as long as its process.
    store = TCPStore("127.0.0.1", int(shared["MASTER_PORT"]), is_master=True, wait_for_workers=False)
    start = time.monotonic()
    processes = [
        Forked(partial(main, list(words)), environment={**shared, "RANK": str(rank), "LOCAL_RANK": "0"}, folder=folder)
        for rank, folder in enumerate(folders)
    ]
    codes = [process.wait(120) for process in processes]
    del store
    return codes, [process.said.read_text() for process in processes], time.monotonic() - start


@pytest.fixture
def nodes(tmp_path):
    """Two nodes with a folder each, and the names of their configs."""
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        names = [Path(path).name for path in configs(folder, 2)]
    return folders, names


def written(folders):
    """All files but those of `Forked`, as they are before a run."""
    return sorted(path for folder in folders for path in folder.rglob("*") if not path.name.startswith("said"))


@pytest.mark.parametrize("lacking", [0, 1])
def test_a_checkpoint_that_one_node_lacks_is_named_by_both_before_the_work(nodes, lacking):
    folders, (config, _) = nodes
    # It would be refused later, since it holds nothing.
    empty = {"state_dict": {}, "vimlight": {"format_version": CHECKPOINT_VERSION}}
    torch.save(empty, folders[1 - lacking] / "last.ckpt")
    before = written(folders)
    codes, errors, seconds = launched(folders, "fit", "--config", config, "--ckpt_path", "last.ckpt")
    said = f"rank {lacking}: checkpoint 'last.ckpt' does not exist"
    assert f"vimlight: {said}" in errors[lacking]
    assert f"vimlight: rank {1 - lacking}: another process cannot begin: {said}; machines that" in errors[1 - lacking]
    assert (codes[lacking], codes[1 - lacking]) == (2, 1)
    assert seconds < 60
    assert "Traceback" not in "".join(errors)
    assert written(folders) == before


@pytest.mark.parametrize("stage", ["module", "zoo"])
def test_what_differs_between_nodes_is_said_by_both_before_the_work(nodes, stage):
    folders, (midstream, downstream) = nodes
    if stage == "module":
        # Its zoo has the module that the other is about to train.
        (folders[1] / "zoo" / "one.safetensors").rename(folders[1] / "zoo" / "module.safetensors")
        expected = "another process cannot begin: rank 1: zoo 'zoo' has a module 'module' already"
    else:
        (folders[1] / "zoo" / "two.safetensors").write_bytes((folders[1] / "zoo" / "one.safetensors").read_bytes())
        expected = "module 'two' of the zoo: "
    before = written(folders)
    codes, errors, seconds = launched(folders, "fit", "--config", midstream if stage == "module" else downstream)
    assert codes == ([1, 2] if stage == "module" else [2, 2]), errors
    assert seconds < 60
    assert expected in errors[0]
    assert "machines that share no folder need the same zoo, data and checkpoint each" in errors[0]
    assert "Traceback" not in "".join(errors)
    assert [path for path in written(folders) if path.suffix in (".ckpt", ".safetensors")] == [
        path for path in before if path.suffix in (".ckpt", ".safetensors")
    ]


def test_nobody_waits_where_torchrun_started_nothing(monkeypatch):
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    Meeting().join()
    with pytest.raises(ConfigError, match=r"^as it was$"), Meeting().told():
        raise ConfigError("as it was")
