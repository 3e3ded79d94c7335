"""Fashion-MNIST, 28 x 28 grey pixels, from the idx files that Debian packages and torchvision downloads."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vimlight.data.source import Source
from vimlight.data.sources import SOURCES
from vimlight.data.tables import TensorTable
from vimlight.errors import DataError

__all__ = ["fashion_mnist", "read_idx"]

CLASSES = ("T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


@SOURCES.register("fashion_mnist")
def fashion_mnist(root: str = "/usr/share/datasets/fashion-mnist") -> Source:
    """Opens Fashion-MNIST: 60,000 images for training, 10,000 for the test.

    Args:
        root: Folder of the four idx files, packed with gzip or not.

    Raises:
        DataError: If the files are missing or damaged.
    """
    folder = Path(root)
    if not (folder / "train-images-idx3-ubyte.gz").exists() and not (folder / "train-images-idx3-ubyte").exists():
        raise DataError(
            f"Fashion-MNIST is not in {folder}: run `apt-get install dataset-fashion-mnist`, or use "
            "dataset: torchvision with dataset_args: {name: FashionMNIST, root: data, download: true}"
        )
    train, test = (
        TensorTable(
            read_idx(folder / f"{prefix}-images-idx3-ubyte"),
            read_idx(folder / f"{prefix}-labels-idx1-ubyte"),
            f"fashion_mnist/{split}",
        )
        for prefix, split in (("train", "train"), ("t10k", "test"))
    )
    return Source("fashion_mnist", "classification", CLASSES, train, test)


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Reads an idx file of unsigned bytes, or its gzipped form with `.gz` added to the name.

    Raises:
        DataError: If the file is missing, truncated or of another type.
    """
    packed = path.with_name(path.name + ".gz")
    try:
        content = gzip.decompress(packed.read_bytes()) if packed.exists() else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"cannot read {path}[.gz]: {error}") from error
    values: NDArray[np.uint8] = np.frombuffer(content, np.uint8)
    # Two zero bytes, the type (8 is uint8), the number of dimensions, then each dimension in four bytes.
    dimensions = int(values[3]) if len(values) > 4 and values[2] == 8 else 0
    shape = tuple(np.frombuffer(content, ">u4", dimensions, offset=4).tolist())
    body = values[4 + 4 * dimensions :]
    if not dimensions or body.size != math.prod(shape):
        raise DataError(f"{path} is not a whole idx file of bytes: found {body.size} values for the shape {shape}")
    return np.array(body).reshape(shape)
