"""Aggregates a zoo for handwritten digits, three labelled images of each, without the command line.

Run it by `python aggregate_zoo.py`, in an empty directory.
"""

import logging
import warnings

import lightning.pytorch as pl

import vimlight as vl

warnings.filterwarnings("ignore", module="lightning")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
pl.seed_everything(0, verbose=False)
backbone = vl.create_backbone("vit_scenes_small", pretrained=True)


def trained(model: pl.LightningModule, data: pl.LightningDataModule, epochs: int) -> pl.Trainer:
    """Fits a model and returns its trainer."""
    trainer = pl.Trainer(
        max_epochs=epochs, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, check_val_every_n_epoch=epochs,
    )  # fmt: skip
    trainer.fit(model, data)
    return trainer


# A zoo of two modules, each trained alone on drawn images.
for name in ("letters", "shapes"):
    data = vl.MidstreamDataModule("scenes", {"task": name, "train": 192, "test": 32}, batch_size=64)
    module = vl.MidstreamModule(
        backbone, "adaptformer", name=name, zoo="zoo", kind=data.kind, class_names=data.class_names
    )
    trained(module, data, epochs=1)

# The task: few images to learn from, and how well each module does on them by leave-one-out.
digits = vl.DownstreamDataModule("digits", shots=3, test_limit=100, batch_size=256)
task = {"kind": digits.kind, "class_names": digits.class_names, "zoo": "zoo"}
for how in ("none", "ens_moe"):
    model = vl.DownstreamModule(backbone, aggregator=how, **task)
    trainer = trained(model, digits, epochs=3)
    (scores,) = trainer.test(model, digits, verbose=False)
    print(f"{how}: accuracy {scores['test/accuracy']:.2f} on 100 test images")

gates = model.aggregator.gates.detach()
print(f"mean gates of {len(gates)} places: {dict(zip(model.module_names, gates.mean(dim=0).tolist(), strict=True))}")
