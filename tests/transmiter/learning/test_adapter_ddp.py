"""Two processes train, choose and score the adapter that one process does with the same global batch."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from processes import run_in
from tiny_pair import write_pair
from tiny_training import trainer
from torch.optim import SGD

from vimlight.transmiter import CacheDataModule, ExtractionModule, RefinementModule

STAGES = ("extraction", "refinement")


def learn(devices, root, caches):
    torch.set_num_threads(1)
    options = {"batch_size": 16 // devices}
    for stage in STAGES:
        place = root / stage
        common = {"optimizer": partial(SGD, lr=0.02), "out": f"{place}/out.safetensors"}
        if stage == "extraction":
            data = CacheDataModule(f"{caches}/weak", tuned=f"{caches}/weak_tuned", **options)
            # Noise is drawn by each process.
            model = ExtractionModule(data.class_names, data.aux_names, noise=0.0, basis="learned", **common)
        else:
            # Of 13 images in batches of 8, one process gets more than the other; of 3, one gets none.
            odd = {"val": f"{caches}/few/strong", "test": f"{caches}/odd/strong"}
            data = CacheDataModule(f"{caches}/strong", shots=8, **odd, **options)
            model = RefinementModule(None, data.class_names, data.aux_names, **common)
        fit = trainer(str(place), epochs=3, strategy="ddp", devices=devices)
        fit.fit(model, datamodule=data)
        tested = {} if stage == "extraction" else fit.test(model, datamodule=data, verbose=False)[0]
        if fit.is_global_zero:
            choice = list(getattr(model, "choice", None) or [])
            torch.save({"state": model.state_dict(), "choice": choice, "tested": tested}, place / "result.pt")


def train(devices, root, caches):
    root.mkdir()
    run_in(devices, partial(learn, devices, root, caches), root)
    return {stage: torch.load(root / stage / "result.pt", weights_only=True) for stage in STAGES}


@pytest.mark.slow
def test_two_processes_train_the_same_adapters(tmp_path):
    for part, count in (("", 80), ("odd", 13), ("few", 3)):
        write_pair(tmp_path / "caches" / part, count=count)
    runs = [train(devices, tmp_path / str(devices), tmp_path / "caches") for devices in (1, 2)]
    for stage in STAGES:
        one, two = (run[stage] for run in runs)
        assert one["state"].keys() == two["state"].keys()
        for name, value in one["state"].items():
            torch.testing.assert_close(two["state"][name], value, rtol=1e-4, atol=1e-6, msg=f"{stage}: {name}")
        assert one["choice"] == pytest.approx(two["choice"], rel=1e-4)
        assert one["tested"] == pytest.approx(two["tested"], rel=1e-4)
        assert bool(one["choice"]) == bool(one["tested"]) == (stage == "refinement")
        assert [path.name for path in (tmp_path / "2" / stage).glob("*.safetensors")] == ["out.safetensors"]
