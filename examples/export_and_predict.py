"""Trains a small task, writes it as one file, and predicts with that file alone.

Run it by `python export_and_predict.py`, in an empty directory.
"""

import json
import logging
import warnings

import lightning.pytorch as pl
import torch

import vimlight as vl

warnings.filterwarnings("ignore", module="lightning")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
pl.seed_everything(0, verbose=False)

backbone = vl.create_backbone("vit_scenes_small", pretrained=True)
zoo = vl.Zoo("zoo")
for name in ("one", "two"):
    # In earnest they are trained; see train_and_reuse.py.
    zoo.add(name, vl.create_plugin("lora", backbone))
data = vl.DownstreamDataModule("digits", shots=5, test_limit=100, batch_size=256)
model = vl.DownstreamModule(backbone, zoo="zoo", kind=data.kind, class_names=data.class_names)
trainer = pl.Trainer(
    max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
    enable_model_summary=False,
)  # fmt: skip
trainer.fit(model, data)

# One graph: gates folded, modules in the backbone's own weights, no zoo; it is compared with the model first.
difference = vl.deploy(model, "predictions").save("digits.pt2")
print(f"digits.pt2 differs from the model by {difference:.0e} at most")

# Whoever has the file needs no vimlight: how images are prepared, and the classes, stand in it.
extra = {"vimlight.json": ""}
program = torch.export.load("digits.pt2", extra_files=extra)
card = json.loads(extra["vimlight.json"])
images, labels = data.arrays("test")
said = program.module()(images[:8]).argmax(dim=1)
print(f"input {card['preprocessing']['size']}, {len(card['classes'])} classes")
print(f"said {[card['classes'][number] for number in said]}, true {[card['classes'][number] for number in labels[:8]]}")
