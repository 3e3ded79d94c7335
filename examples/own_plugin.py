"""A module type of one's own: a gated copy of what each branch adds, in a few lines.

Run it by `python own_plugin.py`, in an empty directory.

`vimlight new plugin NAME` writes such a file with its test, as a package that vimlight finds by itself.
"""

import logging
import warnings

import lightning.pytorch as pl
import torch
from torch import Tensor, nn

import vimlight as vl
from vimlight.backbone import Site
from vimlight.plugins import PLUGINS, Unit

warnings.filterwarnings("ignore", module="lightning")
logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
pl.seed_everything(0, verbose=False)


@PLUGINS.register("gate")
class Gate(Unit):
    """Adds `tanh(gate) * y` to the output y of each branch, with one gate for each channel."""

    reads = "output"

    def __init__(self, site: Site, start: float = 0.0) -> None:
        super().__init__(site)
        self.gate = nn.Parameter(torch.full((site.width,), start))

    def forward(self, x: Tensor) -> Tensor:
        """Returns what is added to x, tokens `(N, L, D)`."""
        return x * self.gate.tanh()


backbone = vl.create_backbone("vit_scenes_small", pretrained=True)
plugin = vl.create_plugin("gate", backbone)
print(f"{len(plugin.sites)} sites, {sum(each.numel() for each in plugin.parameters()):,} parameters")

# From here on it is a type like any other: trained, kept in a zoo, aggregated with others.
data = vl.MidstreamDataModule("scenes", {"task": "shapes", "train": 256, "test": 64}, batch_size=64)
model = vl.MidstreamModule(backbone, "gate", name="shapes", zoo="zoo", kind=data.kind, class_names=data.class_names)
trainer = pl.Trainer(
    max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
    enable_model_summary=False,
)  # fmt: skip
trainer.fit(model, data)
print(f"validation accuracy after one epoch: {float(trainer.callback_metrics['val/accuracy']):.2f}")

zoo = vl.Zoo("zoo")
mixed = vl.aggregate(backbone, [zoo.load("shapes", backbone), vl.create_plugin("lora", backbone)], how="uniform")
print(f"beside a lora module in one pass: {tuple(mixed(torch.rand(2, 3, 64, 64)).shape)}")
