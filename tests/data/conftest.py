from __future__ import annotations

import pytest
from tiny_data import Input, write_image


@pytest.fixture
def preprocessing():
    return Input()


@pytest.fixture
def flowers(tmp_path):
    """Three classes of 6, 7 and 8 files of different sizes and formats."""
    root = tmp_path / "flowers"
    for count, name in ((6, "aster"), (7, "rose"), (8, "tulip")):
        for index in range(count):
            suffix = (".png", ".jpg", ".bmp")[index % 3]
            write_image(root / name / f"{index}{suffix}", size=(12 + index, 20), seed=index)
    return root


@pytest.fixture
def corrupt(flowers):
    """The flowers, with one truncated JPEG file."""
    broken = flowers / "rose" / "1.jpg"
    broken.write_bytes(broken.read_bytes()[:300])
    return broken
