"""Images on their way into a model: read ahead, fitted, augmented and normalised on the device."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Sampler
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as T

from vimlight.data import Augmentation, Table
from vimlight.data.loading import Batch, BatchDataset, batch_loader, raise_worker_error
from vimlight.data.transforms import normalise
from vimlight.transmiter.models.image_text import ImageInput

__all__ = ["ImageViews", "fit_like_open_clip", "read_ahead"]



@dataclass(frozen=True)
class ImageViews:
    """How each image is shown: as in evaluation first, then changed by random numbers of its own.

    Attributes:
        image_input: What the model expects.
        count: Number of views V.
        augmentation: What changes the views beyond the first.
        seed: Decides how.
    """

    image_input: ImageInput
    count: int = 1
    augmentation: Augmentation | None = None
    seed: int = 0

    def prepare(self, images: Tensor, draws: Sequence[Tensor]) -> Iterator[Tensor]:
        """Yields V batches of model inputs.

        Args:
            images: `(n, 3, *size)` uint8, on the device.
            draws: For each view beyond the first, `(n, Augmentation.DRAWS)` random numbers.

        Yields:
            `(n, 3, *size)` float32.
        """
        yield _normalised(images, self.image_input)
        for numbers in draws:
            plain = images.float() / 255
            yield normalise(self.augmentation(plain, numbers) if self.augmentation else plain, self.image_input)

    def draws(self, rows: int) -> list[Tensor]:
        """Returns, for each view beyond the first, random numbers of every image `(rows, Augmentation.DRAWS)`."""
        generators = (torch.Generator().manual_seed(self.seed * 1_000_003 + view) for view in range(1, self.count))
        return [torch.rand(rows, Augmentation.DRAWS, generator=generator) for generator in generators]


class FittedTable(Table):
    """A table whose images were resized, cropped and padded as open_clip does.

    Args:
        table: The images.
        image_input: What the model expects.
    """

    def __init__(self, table: Table, image_input: ImageInput) -> None:
        self._table, self._input = table, image_input
        self.uniform = table.uniform
        super().__init__(table.targets, table.ids)

    def image(self, index: int) -> Tensor:
        """Returns one image, `(3, *size)` uint8."""
        return fit_like_open_clip(self._table.image(index), self._input)

    def images(self, indices: Sequence[int]) -> list[Tensor] | Tensor:
        """Returns images, each `(3, *size)` uint8."""
        images = self._table.images(indices)
        if isinstance(images, Tensor):
            return fit_like_open_clip(images, self._input)
        return [fit_like_open_clip(image, self._input) for image in images]


def fit_like_open_clip(images: Tensor, image_input: ImageInput) -> Tensor:
    """Resizes images to the input as open_clip does, and crops or pads them.

    Args:
        images: `(..., 3, H, W)` uint8.
        image_input: Gives size, interpolation, resize mode and fill colour.

    Returns:
        `(..., 3, *size)` uint8.
    """
    height, width = image_input.size
    old_height, old_width = images.shape[-2:]
    ratios = (height / old_height, width / old_width)
    if image_input.resize_mode == "squash":
        size = [height, width]
    elif image_input.resize_mode == "longest":
        size = [max(1, round(old * min(ratios))) for old in (old_height, old_width)]
    else:
        # Rounded down, but never below the input by an error in the last digit.
        size = [max(int(old * max(ratios)), new) for old, new in ((old_height, height), (old_width, width))]
    if size != [old_height, old_width]:
        images = T.resize(images, size, InterpolationMode(image_input.interpolation), antialias=True)
    return _cropped_or_padded(images, image_input)


def _cropped_or_padded(images: Tensor, image_input: ImageInput) -> Tensor:
    top, left = (new - old for new, old in zip(image_input.size, images.shape[-2:], strict=True))
    if top > 0 or left > 0:
        margins = [left // 2, left - left // 2, top // 2, top - top // 2]
        images = F.pad(images, [max(0, margin) for margin in margins], value=image_input.fill_color)
    cropped: Tensor = T.center_crop(images, list(image_input.size))
    return cropped


def read_ahead(
    table: Table,
    image_input: ImageInput,
    rows: Sequence[int],
    *,
    batch_size: int,
    num_workers: int,
    device: torch.device,
) -> Iterator[Batch]:
    """Yields batches of uint8 images on the device while the next ones are being read.

    Args:
        table: The images.
        image_input: What the model expects.
        rows: Which images, in order.
        batch_size: Images in a batch; the last may have fewer.
        num_workers: Processes that read images; 0 reads them in a thread.
        device: Where the images go.

    Yields:
        `"image"` `(n, 3, *size)` uint8, and `"index"`, their rows.

    Raises:
        DataError: If an image cannot be read.
    """
    dataset = BatchDataset(FittedTable(table, image_input), image_input)
    pin = device.type == "cuda"
    # Any sequence of row numbers serves as a sampler.
    loader = batch_loader(dataset, batch_size, num_workers, cast(Sampler[int], rows), pin_memory=pin, in_thread=True)
    return _moved(loader, device)


def _normalised(images: Tensor, image_input: ImageInput) -> Tensor:
    """Returns what `normalise` makes of uint8 images, in place, which is many times as fast."""
    mean = torch.tensor(image_input.mean, device=images.device)[:, None, None]
    std = torch.tensor(image_input.std, device=images.device)[:, None, None]
    return images.float().sub_(mean * 255).div_(std * 255)


def _moved(loader: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    for batch in loader:
        raise_worker_error(batch)
        yield {**batch, "image": batch["image"].to(device, non_blocking=True)}
