"""What is in a scene: the attributes of every object, sampled before anything is drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vimlight.data.scenes.shapes import SHAPES, TRAINING_SHAPES
from vimlight.data.scenes.textures import TEXTURES
from vimlight.errors import ConfigError, unknown_name

__all__ = ["COLOURS", "POSITIONS", "SIZES", "Layout", "indices_of", "sample_layout", "size_class"]

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 32, 32),
    "orange": (245, 135, 20),
    "yellow": (242, 222, 40),
    "green": (40, 165, 60),
    "cyan": (40, 205, 220),
    "blue": (40, 75, 220),
    "purple": (135, 45, 185),
    "pink": (250, 130, 190),
    "brown": (125, 75, 35),
    "white": (245, 245, 245),
}
SIZES = ("small", "medium", "large")
POSITIONS = (
    ("top left", "top", "top right"),
    ("left", "centre", "right"),
    ("bottom left", "bottom", "bottom right"),
)
_CANDIDATES = 12


@dataclass(frozen=True)
class Layout:
    """The objects of N scenes, K slots each; slots from `count` on are empty and hold -1 or 0.

    Later slots lie in front of earlier ones. Lengths are fractions of the image side.

    Attributes:
        count: Objects per scene, `(N,)`.
        shape: Index into `SHAPES`, `(N, K)`.
        colour: Index into `COLOURS`, `(N, K)`.
        texture: Index into `TEXTURES`, `(N, K)`.
        radius: Radius of the circle that encloses the object, `(N, K)`.
        centre: Middle of that circle, x to the right and y downwards from the top left corner, `(N, K, 2)`.
        angle: Turn anticlockwise in degrees, in [-180, 180), `(N, K)`.
    """

    count: NDArray[np.int64]
    shape: NDArray[np.int64]
    colour: NDArray[np.int64]
    texture: NDArray[np.int64]
    radius: NDArray[np.float32]
    centre: NDArray[np.float32]
    angle: NDArray[np.float32]

    def __len__(self) -> int:
        """Returns the number of scenes."""
        return len(self.count)

    @property
    def present(self) -> NDArray[np.bool_]:
        """Which slots hold an object, `(N, K)`."""
        present: NDArray[np.bool_] = np.arange(self.shape.shape[1]) < self.count[:, None]
        return present

    @property
    def size(self) -> NDArray[np.int64]:
        """Index into `SIZES`, `(N, K)`."""
        return size_class(self.radius)

    @property
    def cell(self) -> NDArray[np.int64]:
        """Cell of the 3x3 grid that holds the centre, row by row from the top left, `(N, K)`."""
        column, row = np.moveaxis(np.clip((self.centre * 3).astype(np.int64), 0, 2), -1, 0)
        return np.asarray(row * 3 + column)


def size_class(radius: NDArray[np.float32]) -> NDArray[np.int64]:
    """Returns the index into `SIZES` for radii given as fractions of the image side."""
    return np.digitize(radius, (0.19, 0.30)).astype(np.int64)


def indices_of(kind: str, chosen: Sequence[str] | None, known: Sequence[str]) -> NDArray[np.int64]:
    """Returns the indices of the chosen names, all of them for `None`.

    Raises:
        UnknownNameError: If a name is not known.
    """
    for name in chosen or ():
        if name not in known:
            raise unknown_name(kind, name, known)
    return np.array([list(known).index(name) for name in (known if chosen is None else chosen)], dtype=np.int64)


def sample_layout(
    count: int,
    rng: np.random.Generator,
    *,
    objects: tuple[int, int] = (1, 1),
    difficulty: float = 0.5,
    shapes: Sequence[str] | None = TRAINING_SHAPES,
    colours: Sequence[str] | None = None,
    textures: Sequence[str] | None = None,
    compositions: NDArray[np.int64] | None = None,
    radius: tuple[float, float] | None = None,
    rotation: float | None = None,
    alike: float = 0.0,
) -> Layout:
    """Samples the objects of `count` scenes.

    Args:
        count: Number of scenes N.
        rng: Source of randomness.
        objects: Fewest and most objects in a scene; K is the latter.
        difficulty: From 0, large upright objects, to 1, any size and any turn.
        shapes: Names of shapes to draw from, uniformly; `None` for all.
        colours: Names of colours to draw from.
        textures: Names of textures to draw from.
        compositions: Rows of (shape, colour, texture) indices `(M, 3)` to draw from instead of the names.
        radius: Smallest and largest radius as fractions of the image side; by default set by the difficulty.
        rotation: Largest turn to either side in degrees; by default set by the difficulty.
        alike: Probability that all objects of a scene share shape, colour, texture and radius.

    Raises:
        ConfigError: If the numbers of objects or the difficulty are out of range.
        UnknownNameError: If a shape, colour or texture does not exist.
    """
    low, high = objects
    if not (1 <= low <= high and 0 <= difficulty <= 1):
        raise ConfigError(
            f"scenes need 1 <= objects[0] <= objects[1] and a difficulty in [0, 1], not {objects}, {difficulty}"
        )
    number = rng.integers(low, high + 1, count)
    if compositions is None:
        names = (("shape", shapes, SHAPES), ("colour", colours, tuple(COLOURS)), ("texture", textures, TEXTURES))
        shape, colour, texture = (rng.choice(indices_of(*row), (count, high)) for row in names)
    else:
        shape, colour, texture = np.moveaxis(rng.choice(compositions, (count, high)), -1, 0)
    radii = _sample_radii(rng, number, high, radius or (0.27 - 0.16 * difficulty, 0.42))
    same = rng.random(count) < alike
    for values in (shape, colour, texture):
        values[same] = values[same, :1]
    radii[same] = radii[same, :1]
    turn = min(180.0, 20 + 320 * difficulty) if rotation is None else rotation
    angle = rng.uniform(-turn, turn, (count, high)).astype(np.float32)
    return _without_absent(Layout(number, shape, colour, texture, radii, _sample_centres(rng, radii), angle))


def _sample_radii(
    rng: np.random.Generator, number: NDArray[np.int64], slots: int, bounds: tuple[float, float]
) -> NDArray[np.float32]:
    """Draws radii `(N, slots)`; the more objects share the image, the smaller they are."""
    crowd = np.sqrt(np.maximum(number, 1.5) / 1.5)[:, None]
    low, high = bounds[0] / np.sqrt(crowd), bounds[1] / crowd
    return (np.minimum(low, high) + rng.random((len(number), slots)) * np.abs(high - low)).astype(np.float32)


def _sample_centres(rng: np.random.Generator, radii: NDArray[np.float32]) -> NDArray[np.float32]:
    """Places the objects one after another, each at the first of some random places that keeps clear of the others."""
    count, slots = radii.shape
    centres = np.zeros((count, slots, 2), dtype=np.float32)
    for slot in range(slots):
        reach = radii[:, slot, None, None] * 0.95
        places = reach + rng.random((count, _CANDIDATES, 2)) * (1 - 2 * reach)
        gap = np.full((count, _CANDIDATES), np.inf)
        for other in range(slot):
            distance = np.linalg.norm(places - centres[:, None, other], axis=-1)
            gap = np.minimum(gap, distance - 0.9 * (radii[:, slot] + radii[:, other])[:, None])
        best = np.minimum(gap, 0.0).argmax(axis=1)
        centres[:, slot] = places[np.arange(count), best]
    return centres


def _without_absent(layout: Layout) -> Layout:
    """Clears the slots that hold no object."""
    absent = ~layout.present
    for labels in (layout.shape, layout.colour, layout.texture):
        labels[absent] = -1
    for values in (layout.radius, layout.centre, layout.angle):
        values[absent] = 0
    return layout
