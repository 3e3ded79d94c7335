"""From a request to an image: its size is bounded before it is read and before it is decoded, and all of it in memory.

Images come as the body itself, so that no parser of forms keeps parts of them in temporary files.
"""

from __future__ import annotations

import asyncio
import io

from PIL import Image
from starlette.requests import ClientDisconnect, Request

from vimlight.data.pictures import UNREADABLE, upright
from vimlight.errors import VimlightError, printable

__all__ = ["KINDS", "RefusedError", "decoded", "read_body"]

KINDS = {
    "image/bmp": "BMP", "image/gif": "GIF", "image/jpeg": "JPEG", "image/png": "PNG", "image/tiff": "TIFF",
    "image/webp": "WEBP",
}  # fmt: skip
"""Content types that are taken, with what PIL calls them; its readers of others are not even tried."""

# A sender that is slower than this holds a place that others wait for.
_SECONDS = 30.0


class RefusedError(Exception):
    """A request that is not answered as asked.

    Args:
        status: Status of the answer.
        text: Why, in one line.
    """

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


async def read_body(request: Request, most: int) -> bytes:
    """Returns the body of a request that brings an image.

    Args:
        request: The request.
        most: Bytes that it may have.

    Raises:
        RefusedError: If it is of another type, larger, empty, cut off, or does not come in time.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in KINDS:
        raise RefusedError(415, f"content type {printable(kind[:80])!r} is none of: {', '.join(KINDS)}; send the image "
                                "itself as the body, as curl --data-binary does")  # fmt: skip
    stated = request.headers.get("content-length", "0")
    if stated.isdecimal() and int(stated) > most:
        raise _too_large(most)
    try:
        body = await asyncio.wait_for(_gathered(request, most), _SECONDS)
    except asyncio.TimeoutError:
        raise RefusedError(408, f"the image did not come within {_SECONDS:g} seconds") from None
    except ClientDisconnect:
        raise RefusedError(400, "the image was cut off") from None
    if not body:
        raise RefusedError(400, "the body is empty; it must be an image")
    return body


async def _gathered(request: Request, most: int) -> bytes:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise _too_large(most)
    return bytes(body)


def decoded(body: bytes, most: int) -> Image.Image:
    """Decodes an image, upright.

    Args:
        body: The file's content.
        most: Pixels that it may have; checked by what its header says before any of them is decoded.

    Raises:
        RefusedError: If it is none, is damaged or has more.
    """
    try:
        with Image.open(io.BytesIO(body), formats=list(KINDS.values())) as image:
            if image.width * image.height > most:
                raise RefusedError(
                    413, f"the image has {image.width} x {image.height} pixels, more than {most / 1e6:g} million"
                )
            return upright(image)
    except Image.DecompressionBombError:
        raise RefusedError(413, f"the image has more than {most / 1e6:g} million pixels") from None
    except VimlightError as error:
        raise RefusedError(422, f"the image cannot be used: {error}") from None
    except UNREADABLE:
        raise RefusedError(422, "the body is no image that can be read, or a damaged one") from None


def _too_large(most: int) -> RefusedError:
    return RefusedError(413, f"the image is larger than {most / 1e6:g} MB")
