"""What becomes of the pixels of images of every mode, and of those that lie on their side."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_data import TURNS, Input, png, write_turned

from vimlight.data.pictures import check_colour, open_picture, orientation, peek, rgb_tensor, upright
from vimlight.data.transforms import fit
from vimlight.errors import ConfigError, DataError, UnknownNameError

STEPS = np.array([[0, 51, 102, 255]], dtype=np.uint8)


def tiff(width, bits, row, photometric=1, sample_format=1):
    """Returns a grey TIFF file of one row."""
    entries = [(256, width), (257, 1), (258, bits), (259, 1), (262, photometric), (273, 0), (277, 1), (278, 1)]
    entries += [(279, len(row)), (339, sample_format)]
    start = 8 + 2 + 12 * len(entries) + 4
    body = b"".join(struct.pack("<HHIHH", tag, 3, 1, start if tag == 273 else value, 0) for tag, value in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + struct.pack("<I", 0) + row


def saved(image, form, **options):
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


def floats(values):
    return Image.fromarray(np.array([values], dtype=np.float32))


def palette(alphas):
    image = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    return saved(image, "PNG", transparency=alphas)


def grey_and_alpha(mode):
    return Image.merge("LA", [Image.fromarray(np.array([[100, 100]], np.uint8)),
                              Image.fromarray(np.array([[255, 0]], np.uint8))]).convert(mode)  # fmt: skip


RIGHT = {
    "1 bit": (saved(Image.fromarray(np.array([[0, 1, 1]], bool)), "PNG"), [0, 255, 255]),
    "2 bits": (png(4, 2, 0, b"\x1b"), [0, 85, 170, 255]),
    "8 bits": (saved(Image.fromarray(STEPS), "PNG"), [0, 51, 102, 255]),
    "16 bits": (saved(Image.fromarray(STEPS.astype(np.uint16) * 257), "PNG"), [0, 51, 102, 255]),
    "16 bits, dark": (saved(Image.fromarray(STEPS.astype(np.uint16)), "PNG"), [0, 0, 0, 0]),
    "16 bits, TIFF": (saved(Image.fromarray(STEPS.astype(np.uint16) * 257), "TIFF"), [0, 51, 102, 255]),
    "16 bits, PGM": (b"P5 2 1 65535\n" + struct.pack(">2H", 0x3300, 0xFFFF), [51, 255]),
    "16 bits, white is 0": (tiff(2, 16, struct.pack("<2H", 0xFFFF, 0x33FF), photometric=0), [0, 204]),
    "12 bits": (tiff(2, 12, b"\xff\xf3\x30"), [255, 51]),
    "RGB of 16 bits": (png(1, 16, 2, struct.pack(">3H", 0x33FF, 0x33FF, 0x33FF)), [51]),
    "floats": (saved(floats([0, 0.2, 0.4, 1]), "TIFF"), [0, 51, 102, 255]),
    "floats, white is 0": (tiff(2, 32, struct.pack("<2f", 1, 0.8), photometric=0, sample_format=3), [0, 51]),
    "CMYK": (saved(Image.new("CMYK", (1, 1), (0, 0, 0, 204)), "TIFF"), [51]),
    "LA": (saved(grey_and_alpha("LA"), "PNG"), [100, 255]),
    "RGBA": (saved(grey_and_alpha("RGBA"), "PNG"), [100, 255]),
    "WebP": (saved(grey_and_alpha("RGBA"), "WEBP", lossless=True), [100, 255]),
    "8 bits, one transparent": (png(2, 8, 0, b"\x05\xc8", [200]), [5, 255]),
    "2 bits, one transparent": (png(4, 2, 0, b"\x1b", [1]), [0, 255, 170, 255]),
    "16 bits, one transparent": (png(2, 16, 0, struct.pack(">2H", 0x3300, 0x6600), [0x3300]), [255, 102]),
}  # fmt: skip


@pytest.mark.parametrize("name", RIGHT)
def test_grey_of_every_kind_keeps_its_brightness(name, tmp_path):
    content, grey = RIGHT[name]
    (tmp_path / "image").write_bytes(content)
    for pixels in (rgb_tensor(open_picture(tmp_path / "image")), rgb_tensor(Image.open(io.BytesIO(content)))):
        assert pixels.dtype == torch.uint8
        assert pixels.tolist() == [[grey]] * 3


def test_colours_of_a_palette_keep_their_own_transparency():
    pixels = rgb_tensor(Image.open(io.BytesIO(palette(bytes([255, 0, 51])))), "#000000")
    assert pixels[:, 0].T.tolist() == [[10, 20, 30], [0, 0, 0], [14, 16, 18]]
    one = rgb_tensor(Image.open(io.BytesIO(palette(2))), "blue")
    assert one[:, 0].T.tolist() == [[10, 20, 30], [40, 50, 60], [0, 0, 255]]


def test_half_transparent_pixels_are_mixed_with_the_background():
    image = Image.new("RGBA", (1, 1), (200, 100, 0, 51))
    assert rgb_tensor(image).flatten().tolist() == [244, 224, 204]
    assert rgb_tensor(image, "black").flatten().tolist() == [40, 20, 0]
    assert rgb_tensor(image.convert("RGBa"), "black").flatten().tolist() == [40, 20, 0]


@pytest.mark.parametrize("mode", ["PA", "HSV", "YCbCr", "RGBX"])
def test_other_modes_are_converted(mode):
    assert rgb_tensor(Image.new("RGB", (2, 1), (255, 0, 0)).convert(mode)).shape == (3, 1, 2)


ARRAYS = [
    (np.array([[0, 51]], np.uint8), [0, 51]),
    (np.array([[False, True]]), [0, 255]),
    (np.array([[0x33FF, 0xFFFF]], np.uint16), [51, 255]),
    (np.array([[0.2, 1.0]]), [51, 255]),
    (np.full((1, 2, 1), 7, np.uint8), [7, 7]),
    (np.array([[[9, 9, 9, 255], [9, 9, 9, 0]]], np.uint8), [9, 255]),
    (torch.tensor([[[0.2, 1.0]]]), [51, 255]),
    (torch.full((3, 1, 2), 0.2, dtype=torch.bfloat16), [51, 51]),
]


@pytest.mark.parametrize(("array", "grey"), ARRAYS)
def test_arrays_are_scaled_by_the_range_of_their_type(array, grey):
    assert rgb_tensor(array).tolist() == [[grey]] * 3


WRONG = [
    (Image.fromarray(np.array([[0, 70000]], np.int32)), r"int32 numbers .* save it with 8 or 16 bits.*mode I\)"),
    (Image.open(io.BytesIO(tiff(2, 16, struct.pack("<2h", -3, 9), sample_format=2))), r"int32 .*\(PIL mode I\)"),
    (floats([0, 255]), r"floats from 0 to 255, expected 0 to 1; save it with 8 or 16 bits .*\(PIL mode F\)"),
    (floats([-0.1, 1]), r"floats from -0.1 to 1"),
    (floats([0, float("nan")]), r"floats from nan to nan"),
    (Image.open(io.BytesIO(png(1, 16, 2, bytes(6), [0x1234] * 3))), "16 bits a channel and one transparent colour"),
    (np.zeros((2, 2), np.int64), "its pixels are int64 numbers"),
    (np.zeros((2, 2, 5), np.uint8), r"it is an array \(2, 2, 5\), expected \(H, W\)"),
    ([[0, 1]], "it is a list, not an image"),
    (None, "it is missing, not an image"),
]


@pytest.mark.parametrize(("image", "text"), WRONG)
def test_what_has_no_known_white_is_refused(image, text):
    with pytest.raises(DataError, match=text):
        rgb_tensor(image)


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
@pytest.mark.parametrize("tag", TURNS)
def test_images_are_upright(tmp_path, suffix, tag):
    expected = np.kron(np.array([[0, 80], [160, 240], [40, 200]], np.uint8), np.ones((8, 8), np.uint8))
    path = write_turned(tmp_path / f"a.{suffix}", expected, tag)
    pixels = rgb_tensor(open_picture(path)).float()
    assert pixels.shape == (3, 24, 16)
    assert (pixels[0] - torch.from_numpy(expected)).abs().max() <= 6
    assert peek(path)[1] == tag
    # Whoever is handed the image does not turn it again.
    assert orientation(open_picture(path)) == 1
    assert upright(open_picture(path)).size == (16, 24)


def test_a_tag_of_another_kind_turns_too(tmp_path):
    packet = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'
    Image.new("RGB", (3, 2)).save(tmp_path / "a.jpg", xmp=packet.encode())
    assert open_picture(tmp_path / "a.jpg").size == (2, 3)


@pytest.mark.parametrize("exif", [b"Exif\0\0MM\0*", b"Exif\0\0nonsense", b"Exif\0\0II*\0\x08\0\0\0\xff\xff"])
def test_a_damaged_tag_is_no_tag(tmp_path, exif):
    Image.new("RGB", (3, 2)).save(tmp_path / "a.png", exif=exif)
    assert open_picture(tmp_path / "a.png").size == (3, 2)


def test_colours_are_checked():
    assert [check_colour(name) for name in ("white", "#808080", "rgb(1, 2, 3)")] == ["white", "#808080", "rgb(1, 2, 3)"]
    with pytest.raises(UnknownNameError, match="unknown colour 'whit'; did you mean 'white'"):
        check_colour("whit")
    for name in ("#12345", "#00000080"):
        with pytest.raises(ConfigError, match=f"background '{name}' is no opaque colour; give a name such as white"):
            check_colour(name)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
def test_interleaved_pixels_are_resized_to_the_same_numbers_as_planes(interpolation):
    pixels = np.random.default_rng(0).integers(0, 256, (37, 51, 3), dtype=np.uint8)
    image = rgb_tensor(Image.fromarray(pixels))
    assert image.stride() == (1, 3 * 51, 3)
    preprocessing = Input(size=(24, 24), interpolation=interpolation)
    assert torch.equal(fit(image, preprocessing), fit(image.contiguous(), preprocessing))
