"""A tiny model over fixed batches, so that reports can be tested without a data set."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from vimlight.backbone import create_backbone
from vimlight.training.base import SupervisedModule

CLASSES = ("cat", "dog", "eel")
IMAGES = 8


class Drawn(Dataset):
    """Eight images with the classes 0, 0, 0, 1, 1, 1, 2, 2 and the ids `img0` to `img7`."""

    def __init__(self, kind: str = "classification", length: int = IMAGES) -> None:
        self.images = torch.randn(IMAGES, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        self.targets = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2])
        if kind == "multilabel":
            self.targets = nn.functional.one_hot(self.targets, 3)
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict:
        return {"image": self.images[index], "target": self.targets[index], "id": f"img{index}"}


class TinyModule(SupervisedModule):
    """A linear head on a tiny frozen backbone."""

    def __init__(self, kind: str = "classification") -> None:
        arguments = {"img_size": 16, "patch_size": 8, "embed_dim": 16, "depth": 1, "num_heads": 2}
        super().__init__(create_backbone("vit_tiny_patch16_224", **arguments), kind=kind, class_names=CLASSES)
        self.head = nn.Linear(16, 3)

    def trainable_modules(self) -> dict[str, nn.Module]:
        return {"head": self.head}

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(images))


def loader(kind: str = "classification", length: int = IMAGES) -> DataLoader:
    return DataLoader(Drawn(kind, length), batch_size=2)
