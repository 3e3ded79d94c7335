"""What tasks with an answer at every position share: heads that read maps, and examples for closed forms."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vimlight.errors import ConfigError, unknown_name
from vimlight.registry import Registry
from vimlight.tasks.base import Shapes, Task
from vimlight.tasks.closed_form import Examples
from vimlight.tasks.heads import AffineHead, start_of
from vimlight.tasks.semantic_fpn import SemanticFPN

__all__ = ["MAP_HEADS", "LinearMaps", "MapTask", "Standardised", "common_grid", "join_maps", "upsample"]

# Examples of a closed form in all, and how many positions of one image count at least.
_EXAMPLES, _FEWEST = 2048, 4
# Of four maps of one size, as a plain transformer has them, the strides relative to the finest that is made of them.
_NOMINAL_STRIDE = 16

MapHead = Callable[[Shapes, int, int], nn.Module]
"""From the maps' shapes, the number of outputs and a width to a module from maps to `(N, C, h, w)`."""
MAP_HEADS: Registry[MapHead] = Registry("head of maps", "vimlight.tasks", "MAP_HEADS")


class MapTask(Task):
    """A task whose head reads maps and answers at every position.

    Args:
        class_names: Names of the classes.
        head: Name in `MAP_HEADS`: `"semantic_fpn"`, or `"linear"` for an affine map of each position.
        width: Channels inside the head, where it has any.

    Raises:
        UnknownNameError: If there is no such head.
        ConfigError: If the width is less than 1.
    """

    reads = "maps"

    def __init__(self, class_names: Sequence[str] = (), *, head: str = "semantic_fpn", width: int = 256) -> None:
        super().__init__(class_names)
        if head not in MAP_HEADS:
            raise unknown_name("head of maps", head, MAP_HEADS)
        if width < 1:
            raise ConfigError(f"width must be at least 1, got {width}")
        self.head, self.width = head, width

    def create_head(self, shapes: Shapes) -> nn.Module:
        """Creates the head that `head` names, with standardised inputs."""
        return MAP_HEADS[self.head](shapes, self.num_outputs, self.width)

    @property
    def closed_form(self) -> bool:
        """Whether the head is affine at every position."""
        return self.head == "linear"

    @property
    def ranks(self) -> bool:
        """Modules of a zoo are ranked by what their maps tell of each position's surroundings."""
        return True

    def examples(self, features: Any, targets: Any, images: int) -> Examples:
        """Returns the features of some positions and the targets pooled around them.

        The positions are those of `common_grid`, some of each image, drawn from a fixed seed; positions around which
        no target is known are left out.
        """
        joined = join_maps(features)
        columns, known = self.pooled(targets, (joined.shape[2], joined.shape[3]))
        vectors, columns, known = (x.flatten(2).movedim(1, -1) for x in (joined, columns, known[:, None]))
        count, places = known.shape[:2]
        few = min(places, max(_FEWEST, _EXAMPLES // max(1, images)))
        order = torch.rand(count, places, generator=torch.Generator().manual_seed(0)).argsort(dim=1)[:, :few]
        rows = torch.zeros(count, places, dtype=torch.bool).scatter_(1, order, True).to(known.device) & known[..., 0]
        return Examples(vectors[rows], columns[rows], rows.nonzero()[:, 0])

    @abstractmethod
    def pooled(self, targets: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Returns what an affine head should say at the positions of a grid.

        Args:
            targets: A batch of targets.
            grid: Rows and columns.

        Returns:
            Columns `(N, C, *grid)`, and where they are known `(N, *grid)`, boolean.
        """


class Standardised(nn.Module):
    """Centres and scales the channels of each map before a head reads them.

    Outputs of raw blocks differ in scale by orders; gradient steps want well-scaled inputs. Until `start` nothing is
    changed.

    Args:
        channels: Channels of each map.
        body: The head, from a list of maps.

    Attributes:
        body: The head.
    """

    def __init__(self, channels: Sequence[int], body: nn.Module) -> None:
        super().__init__()
        self.body = body
        for level, count in enumerate(channels):
            self.register_buffer(f"mean{level}", torch.zeros(count))
            self.register_buffer(f"scale{level}", torch.ones(count))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Returns what the head makes of the standardised maps."""
        scaled = [
            (x - self.get_buffer(f"mean{level}")[:, None, None]) / self.get_buffer(f"scale{level}")[:, None, None]
            for level, x in enumerate(maps)
        ]
        outputs: Tensor = self.body(scaled)
        return outputs

    @torch.no_grad()
    def start(self, maps: Sequence[Tensor], targets: Any) -> None:
        """Takes means and scales from maps of some training images."""
        for level, x in enumerate(maps):
            mean, scale = start_of(x.float().movedim(1, -1).flatten(0, -2))
            self.get_buffer(f"mean{level}").copy_(mean)
            self.get_buffer(f"scale{level}").copy_(scale)


class LinearMaps(AffineHead):
    """An affine map of all maps at every position of their common grid."""

    def __init__(self, shapes: Shapes, num_outputs: int) -> None:
        super().__init__(sum(shape[0] for shape in shapes), num_outputs)

    def forward(self, maps: Any) -> Tensor:
        """Returns `(N, C, h, w)`."""
        return super().forward(join_maps(maps).movedim(1, -1)).movedim(-1, 1)

    def start(self, maps: Any, targets: Any) -> None:
        """Takes mean and scale of each channel from maps of some training images."""
        self.standardise(join_maps(maps).movedim(1, -1).flatten(0, -2))


@MAP_HEADS.register("linear")
def linear(shapes: Shapes, num_outputs: int, width: int) -> nn.Module:
    """Creates an affine head; it has no width of its own."""
    return LinearMaps(shapes, num_outputs)


@MAP_HEADS.register("semantic_fpn")
def semantic_fpn(shapes: Shapes, num_outputs: int, width: int) -> nn.Module:
    """Creates a Semantic-FPN head: four scales made of the maps of a plain transformer, or those of the stages."""
    channels = [shape[0] for shape in shapes]
    sizes = [shape[1] for shape in shapes]
    if len(set(sizes)) == 1:
        strides = [_NOMINAL_STRIDE // 4 * 2**level for level in range(len(shapes))]
        given = [_NOMINAL_STRIDE] * len(shapes)
    else:
        given = strides = [4 * 2 ** round(torch.tensor(sizes[0] / size).log2().item()) for size in sizes]
    body = SemanticFPN(
        channels, num_outputs, width=width, head_width=max(1, width // 2), strides=strides, map_strides=given
    )
    return Standardised(channels, body)


def common_grid(maps: Sequence[Tensor]) -> tuple[int, int]:
    """Returns the grid that maps are brought to: that of the second coarsest, which is the only one of transformers."""
    sizes = sorted({(x.shape[-2], x.shape[-1]) for x in maps})
    return sizes[min(1, len(sizes) - 1)]


def join_maps(maps: Sequence[Tensor]) -> Tensor:
    """Brings maps to their common grid, by averaging or bilinear, and puts their channels side by side.

    Args:
        maps: `(N, C, H, W)` each.

    Returns:
        `(N, sum of C, h, w)`.
    """
    grid = common_grid(maps)
    return torch.cat([_to_grid(x, grid) for x in maps], dim=1)


def upsample(outputs: Tensor, size: tuple[int, int]) -> Tensor:
    """Enlarges outputs `(N, C, h, w)` to a size, bilinear, in single precision."""
    return F.interpolate(outputs.float(), size=size, mode="bilinear", align_corners=False)


def _to_grid(x: Tensor, grid: tuple[int, int]) -> Tensor:
    if tuple(x.shape[-2:]) == grid:
        return x
    if x.shape[-2] >= grid[0] and x.shape[-1] >= grid[1]:
        return F.adaptive_avg_pool2d(x, grid)
    return F.interpolate(x, size=grid, mode="bilinear", align_corners=False)
