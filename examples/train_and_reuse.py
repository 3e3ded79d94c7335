"""Trains a module on drawn letters, keeps it in a zoo, and takes it up again.

Run it by `python train_and_reuse.py`, in an empty directory.
"""

import logging
import warnings

import lightning.pytorch as pl
import torch

import vimlight as vl

warnings.filterwarnings("ignore", module="lightning")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
pl.seed_everything(0, verbose=False)

# The backbone comes with the package, and stays as it is.
backbone = vl.create_backbone("vit_scenes_small", pretrained=True)
data = vl.MidstreamDataModule("scenes", {"task": "letters", "train": 256, "test": 64}, batch_size=64)
model = vl.MidstreamModule(
    backbone,
    {"kind": "convpass", "hidden": 8},
    name="letters",
    zoo="zoo",
    kind=data.kind,
    class_names=data.class_names,
    card={"license": "apache-2.0"},
)
trainer = pl.Trainer(
    max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
    enable_model_summary=False,
)  # fmt: skip
trainer.fit(model, data)

# The module is one small file, whose card says what it is.
zoo = vl.Zoo("zoo")
card = zoo.card("letters")
print(f"{zoo.names()} of {card.kind} for {card.backbone}: {card.task} of {len(card.classes)} classes")
print(f"{zoo.file('letters').stat().st_size / 1024:.0f} KB")

# To load it checks hashes, and that it was trained on this very backbone.
module = zoo.load("letters", backbone)
images = torch.rand(2, 3, 64, 64)
bare = backbone(images)
with vl.attach(backbone, module):
    changed = backbone(images)
print(f"the module moves features by {float((changed - bare).norm() / bare.norm()):.0%}")
print(f"without it the backbone is the same, bit for bit: {torch.equal(backbone(images), bare)}")
