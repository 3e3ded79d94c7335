"""The cache of a run: which columns it needs, how they are computed, and what stands for the images of a batch."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any, Protocol

import torch
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor

from vimlight.backbone import Backbone, Features, KeptImages, Prefix
from vimlight.data import ImageDataModule
from vimlight.errors import BackboneError, ConfigError, shown, unknown_name
from vimlight.plugins import Plugin
from vimlight.plugins.attachment import depth_of
from vimlight.prefix_cache.store import Column, Compute, Store

__all__ = ["FrozenPart", "PrefixCache"]

_DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
# Raised when what is kept changes its meaning.
_FORMAT = 2


@dataclasses.dataclass(frozen=True)
class FrozenPart:
    """What of a model stays as it is while it is trained.

    Attributes:
        backbone: The backbone.
        readout: What is read out.
        plugins: All that is attached to it, trained, gated or fixed: the blocks before the first of them are frozen.
        streams: Names of whole passes that depend on nothing that is learned; see `KeptImages.recall`.
        tuned: The first block whose own weights are learned, where some are; -1 if weights outside the blocks are.
    """

    backbone: Backbone
    readout: str
    plugins: Sequence[Plugin] = ()
    streams: Sequence[str] = ()
    tuned: int | None = None

    @cached_property
    def depth(self) -> int:
        """How many blocks, from the first on, nothing is attached to or learned of; -1 if not even before them."""
        depths = [depth_of(site, self.backbone) for plugin in self.plugins for site in plugin.sites]
        return min([*depths, len(self.backbone.blocks) if self.tuned is None else self.tuned])

    def refusal(self, size: Sequence[int]) -> str | None:
        """Returns why there is nothing to keep before the first plug-in, if so.

        Args:
            size: Height and width of the images.
        """
        if self.depth < 0:
            return "something outside the blocks is learned or has a plug-in; give it blocks such as all or last:3"
        if self.depth < len(self.backbone.blocks):
            if tuple(size) != tuple(self.backbone.preprocessing.size):
                return f"the images have another size, {tuple(size)}, than the backbone's own"
            try:
                self.backbone.route(self.depth)
            except BackboneError as error:
                return str(error)
        return None


class _Model(Protocol):
    """What is asked of a model: a Lightning module over a backbone."""

    @property
    def trainer(self) -> Any:
        """The trainer."""

    @property
    def device(self) -> Any:
        """Where the model is."""

    def frozen_part(self) -> FrozenPart:
        """Returns what of the model stays as it is."""


class PrefixCache:
    """Keeps what the blocks before the first plug-in make of the images, and whole passes that nothing learned changes.

    Args:
        dir: Directory of the cache; several runs may share it, also at the same time.
        dtype: `"float16"`, `"bfloat16"`, or `"float32"` for results equal to those without a cache, bit for bit.
        max_gb: Largest size of the directory in gigabytes; what was not used for longest makes room.
        views: How many fixed augmentations there are of each training image, of which every epoch takes the next;
            needed where training images are augmented.

    Raises:
        ConfigError: If a number is out of range.
        UnknownNameError: If there is no such type.
    """

    def __init__(self, dir: str, dtype: str = "float16", max_gb: float = 20.0, views: int | None = None) -> None:
        if dtype not in _DTYPES:
            raise unknown_name("dtype of prefix_cache", dtype, _DTYPES)
        if max_gb <= 0:
            raise ConfigError(f"max_gb of prefix_cache must be more than 0, got {max_gb}")
        if views is not None and views < 1:
            raise ConfigError(f"views of prefix_cache must be at least 1, got {views}")
        self.path, self.max_gb, self.views = dir, max_gb, views
        self.dtype = _DTYPES[dtype]

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> PrefixCache:
        """Returns a cache from a mapping of its arguments.

        Raises:
            ConfigError: If there is no `dir`.
            UnknownNameError: If there is no such setting.
        """
        valid = list(inspect.signature(cls).parameters)
        for name in settings:
            if name not in valid:
                raise unknown_name("setting of prefix_cache", name, valid)
        if "dir" not in settings:
            raise ConfigError(f"prefix_cache {shown(dict(settings))} lacks 'dir', the directory of the cache")
        return cls(**settings)

    def serve(self, model: _Model) -> None:
        """Lets the trainer's data bring what is kept of the images instead of the images.

        Args:
            model: The model, within a trainer.

        Raises:
            ConfigError: If the data are none of vimlight's, or training images are augmented anew in every epoch.
        """
        data = model.trainer.datamodule
        if not isinstance(data, ImageDataModule):
            raise ConfigError("prefix_cache needs a MidstreamDataModule or a DownstreamDataModule")
        if data.augmentation is not None and self.views is None:
            raise ConfigError(
                "prefix_cache cannot keep augmentations that are new in every epoch; set prefix_cache.views to a "
                "number of fixed ones for each image, or data.augment to 'none'"
            )
        # Nobody wants all images computed to see one batch.
        data.keeper = None if model.trainer.fast_dev_run else _Keeper(self, model, data)


class _Keeper:
    """Keeps images for one model and its data; see `vimlight.data.Keeper`."""

    def __init__(self, cache: PrefixCache, model: _Model, data: ImageDataModule) -> None:
        self.views = cache.views
        self.dtype = cache.dtype
        self._model, self._data = model, data
        self._cache, self._store = cache, Store(cache.path, cache.max_gb)
        self._columns: dict[tuple[Any, ...], Column | None] = {}
        self._digests: dict[str, str] = {}
        self._fingerprint = ""
        self._row_bytes: dict[tuple[int, str], int] = {}
        self._said: set[str] = set()
        self._look()

    @property
    def size(self) -> tuple[int, int]:
        return self._data.preprocessing.size

    def _look(self) -> None:
        """Looks at the model as it is now: a checkpoint may have brought other modules."""
        self.part: FrozenPart = self._model.frozen_part()
        self._why_not = self.part.refusal(self.size)

    def keeps(self, split: str, augmented: bool) -> bool:
        self._look()
        part, why = self.part, self._why_not
        views = range(self.views) if augmented and self.views else [None]
        if part.streams:
            return self.stream(part.streams[0], split, None) is not None
        if why is None and any(self.tokens(split, view) is None for view in views):
            why = f"the {split} images do not fit into {self._cache.max_gb:g} GB; raise prefix_cache.max_gb"
        if why is not None:
            self._say(rank_zero_warn, f"prefix_cache: {split} runs without it: {why}")
            return False
        what = f"before block {part.depth}" if part.depth < len(part.backbone.blocks) else "out of the backbone"
        self._say(rank_zero_info, f"prefix_cache: of {split} images, what comes {what} is kept in {self._cache.path!r}")
        return True

    def images(self, split: str, view: int | None, rows: Sequence[int], visited: int) -> KeptImages:
        return _Rows(self, split, view, list(rows), visited)

    def tokens(self, split: str, view: int | None) -> Column | None:
        """Returns the column of what enters the first block that something is attached to, if it can be kept."""
        part = self.part
        if self._why_not is not None:
            return None
        what = {"depth": part.depth, "readout": part.readout}
        return self._column(split, view, what, self._bytes_of_tokens)

    def stream(self, name: str, split: str, view: int | None) -> Column | None:
        """Returns the column of the features of a whole pass, if it can be kept."""
        part = self.part
        if name not in part.streams:
            return None
        numbers = sum(math.prod(shape) for shape in part.backbone.feature_shapes(part.readout))
        return self._column(split, view, {"stream": name}, lambda: numbers * self.dtype.itemsize)

    def pixels(self, split: str, view: int | None, rows: Sequence[int]) -> Tensor:
        """Returns the images of some rows, `(N, 3, H, W)`."""
        return next(self._data.read(split, [rows], view, self._model.device))[1]

    def prefixes(self, split: str, view: int | None) -> Compute:
        """Returns what computes chunks of a column of tokens."""
        part = self.part

        def compute(chunks: Iterable[Sequence[int]]) -> Iterator[tuple[Sequence[int], Mapping[str, Tensor]]]:
            for rows, images in self._data.read(split, chunks, view, self._model.device):
                parts = [_tensors_of(self._prefix(part, some)) for some in images.split(self._data.batch_size)]
                yield rows, {name: torch.cat([one[name] for one in parts]) for name in parts[0]}

        return compute

    def passes(self, split: str, view: int | None, run: Callable[[Any], Features]) -> Compute:
        """Returns what computes chunks of a column of whole passes: from tokens, where these are kept."""
        part = self.part
        size = self._data.batch_size

        def inputs(chunks: Iterable[Sequence[int]]) -> Iterator[tuple[Sequence[int], list[Any]]]:
            if self.tokens(split, view) is None:
                for rows, images in self._data.read(split, chunks, view, self._model.device):
                    yield rows, list(images.split(size))
            else:
                for chunk in chunks:
                    yield chunk, [_Rows(self, split, view, chunk[i : i + size]) for i in range(0, len(chunk), size)]

        @torch.no_grad()
        def compute(chunks: Iterable[Sequence[int]]) -> Iterator[tuple[Sequence[int], Mapping[str, Tensor]]]:
            for rows, batches in inputs(chunks):
                with self._precision():
                    found = [run(self._typed(part, batch)) for batch in batches]
                levels = [[one] if isinstance(one, Tensor) else one for one in found]
                yield rows, {str(n): torch.cat(level) for n, level in enumerate(zip(*levels, strict=True))}

        return compute

    def to_device(self, found: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.to(self._model.device, non_blocking=True) for name, tensor in found.items()}

    def _column(
        self, split: str, view: int | None, what: dict[str, Any], row_bytes: Callable[[], int]
    ) -> Column | None:
        key = (split, view, *what.values())
        if key not in self._columns:
            count = len(self._data.tables[split])
            about = {**self._about(split, view), "what": what}
            self._columns[key] = self._store.column(about, count, row_bytes(), self.dtype)
        return self._columns[key]

    def _about(self, split: str, view: int | None) -> dict[str, Any]:
        """Returns all that numbers of a split depend on, but for what of the model computes them."""
        if not self._fingerprint:
            # Of the weights as they are here, in the type in which they compute.
            self._fingerprint = self.part.backbone.compute_fingerprint()
        if split not in self._digests:
            self._digests[split] = self._data.tables[split].digest()
        augmented = None
        if view is not None:
            assert self._data.augmentation is not None
            augmented = {**dataclasses.asdict(self._data.augmentation), "seed": self._data.seed, "view": view}
        return {
            "format": _FORMAT,
            "backbone": self._fingerprint,
            "preprocessing": dataclasses.asdict(self._data.preprocessing),  # type: ignore[call-overload]  # it is one
            "images": self._digests[split],
            "view": augmented,
            "arithmetic": [
                str(self._model.trainer.precision),
                self._model.device.type,
                torch.get_float32_matmul_precision(),
                torch.__version__,
            ],
        }

    def _bytes_of_tokens(self) -> int:
        """Returns the size of a row, seen in an empty image."""
        key = (self.part.depth, self.part.readout)
        if key not in self._row_bytes:
            image = torch.zeros(1, 3, *self.size, device=self._model.device)
            prefix = self._prefix(self.part, image)
            self._row_bytes[key] = sum(t.numel() for t in _tensors_of(prefix).values()) * self.dtype.itemsize
        return self._row_bytes[key]

    def _prefix(self, part: FrozenPart, images: Tensor) -> Prefix:
        with self._precision():
            return part.backbone.prefix(self._typed(part, images), part.depth, part.readout)

    def _precision(self) -> AbstractContextManager[Any]:
        context: AbstractContextManager[Any] = self._model.trainer.precision_plugin.forward_context()
        return context

    @staticmethod
    def _typed(part: FrozenPart, images: Any) -> Any:
        return images.to(next(part.backbone.parameters()).dtype) if isinstance(images, Tensor) else images

    def _say(self, how: Callable[[str], Any], text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            how(text)


class _Rows(KeptImages):
    """Stands for the images of some rows of a split."""

    def __init__(
        self, keeper: _Keeper, split: str, view: int | None, rows: Sequence[int], visited: int | None = None
    ) -> None:
        self._keeper, self._split, self._view, self._rows = keeper, split, view, rows
        # Filled in at once, so that the images are read by all workers together.
        self._visited: Iterable[int] = rows if visited is None else range(visited)

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Tensor:
        return self._keeper.pixels(self._split, self._view, [self._rows[index]])[0]

    @property
    def shape(self) -> torch.Size:
        return torch.Size([len(self._rows), 3, *self._keeper.size])

    def prefix(self, readout: str) -> Prefix:
        column = self._keeper.tokens(self._split, self._view)
        assert column is not None
        column.fill(self._keeper.prefixes(self._split, self._view), self._visited)
        return _prefix_of(self._keeper.to_device(column.read(self._rows)), self._keeper.part)

    def recall(self, name: str, compute: Callable[[Any], Features]) -> Features:
        column = self._keeper.stream(name, self._split, self._view)
        if column is None:
            kept = self._keeper.tokens(self._split, self._view) is not None
            return compute(self if kept else self._keeper.pixels(self._split, self._view, self._rows))
        column.fill(self._keeper.passes(self._split, self._view, compute), self._visited)
        found = self._keeper.to_device(column.read(self._rows))
        levels = [_as_computed(found[str(n)]) for n in range(len(found))]
        return levels[0] if levels[0].dim() == 2 else levels


def _tensors_of(prefix: Prefix) -> dict[str, Tensor]:
    return {"tokens": prefix.tokens, **{f"read {name}": tensor for name, tensor in prefix.read.items()}}


def _prefix_of(tensors: Mapping[str, Tensor], part: FrozenPart) -> Prefix:
    read = {name[5:]: _as_computed(tensor) for name, tensor in tensors.items() if name.startswith("read ")}
    # Where channels come last by the shape itself, the order in memory is that of the files.
    maps = part.depth < len(part.backbone.blocks) and part.backbone.blocks[part.depth].layout.kind != "NHWC"
    return Prefix(part.depth, _as_computed(tensors["tokens"]) if maps else tensors["tokens"], read, part.readout)


def _as_computed(tensor: Tensor) -> Tensor:
    """Gives maps the order in memory in which backbones compute them."""
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor
