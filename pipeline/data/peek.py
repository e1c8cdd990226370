"""What an image object says of its size and mode, from as few of its bytes as that takes.

    PNG, JPEG, BMP    the first 64 KiB, further only where metadata come before the size
    TIFF              the directories, wherever in the file they lie
    WebP              chunk headers; the EXIF chunk if there is one

Decodes no pixels, and says nothing of whether the pixels are sound. Knows URIs, no rows.
"""

import io
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from pipeline.data import headers, storage
from pipeline.data.pillow import DAMAGE, own_rules
from pipeline.errors import ItemError
from pipeline.uris import without_query

_BLOCK = 1 << 16
_ORIENTATION = 0x0112
_TURNED = (5, 6, 7, 8)  # orientations that swap width and height
_EXIF_FLAG, _ALPHA_FLAG = 0x08, 0x10  # of a WebP's VP8X chunk


@dataclass(frozen=True)
class HeaderFacts:
    """width, height: LR pixels after EXIF orientation, of the first page. mode: as Pillow names it."""

    width: int
    height: int
    mode: str
    format: str
    pages: int = 1


def header_facts(uri: str, size: int | None = None) -> HeaderFacts | None:
    """The facts of the image object at `uri`, or None where its format tells them only when decoded.

    size: bytes of the object, asked for where not given. Raises `ItemError` input-empty,
    not-an-image, corrupt-image, and `StorageError`.
    """
    size = storage.stat(uri).size if size is None else size
    if not size:
        raise ItemError("input-empty", f"{without_query(uri)} has zero bytes")
    file = io.BufferedReader(_Remote(uri, size), _BLOCK)
    format = headers.format_of(file.peek(_BLOCK)[:64])
    if format is None:
        raise ItemError("not-an-image", f"{without_query(uri)} is in no image format known here")
    with own_rules():
        try:
            return _webp(file) if format == "webp" else _by_pillow(file, format)
        except UnidentifiedImageError:
            return None
        except DAMAGE as error:
            raise ItemError("corrupt-image", f"the {format} is damaged: {error or type(error).__name__}") from None


class _Remote(io.RawIOBase):
    """An object as a file that fetches what is read."""

    def __init__(self, uri: str, size: int) -> None:
        self._uri, self._size, self._position = uri, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def readinto(self, buffer: "bytearray | memoryview") -> int:  # type: ignore[override]
        length = min(len(buffer), self._size - self._position)
        if length <= 0:
            return 0
        data = storage.read_range(self._uri, self._position, length)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def _by_pillow(file: "io.BufferedReader[_Remote]", format: str) -> HeaderFacts:
    image = Image.open(file)
    width, height = image.size
    pages = getattr(image, "n_frames", 1) if format == "tiff" else 1
    orientation = image.getexif().get(_ORIENTATION) if format != "png" else _orientation(image.info.get("exif"))
    if format == "tiff":
        image.seek(0)
        width, height = image.size
    if orientation in _TURNED and format != "tiff":  # Pillow gives a TIFF's size as it will be turned
        width, height = height, width
    return HeaderFacts(width, height, image.mode, format, pages)


def _orientation(block: bytes | None) -> int | None:
    """Of an EXIF block; asking a PNG itself would read the file to its end."""
    if not block:
        return None
    tags = Image.Exif()
    tags.load(block)
    return tags.get(_ORIENTATION)


def _webp(file: "io.BufferedReader[_Remote]") -> HeaderFacts:
    """Pillow would read the whole file."""
    head = file.peek(64)[:64]
    size = headers.webp_size(head)
    if size is None:
        raise ItemError("corrupt-image", "the webp is damaged: it has no size")
    alpha = head[12:16] == b"VP8X" and bool(head[20] & _ALPHA_FLAG)
    width, height = size
    if head[12:16] == b"VP8X" and head[20] & _EXIF_FLAG and _orientation(_webp_exif(file)) in _TURNED:
        width, height = height, width
    return HeaderFacts(width, height, "RGBA" if alpha else "RGB", "webp")


def _webp_exif(file: "io.BufferedReader[_Remote]") -> bytes | None:
    position = 12
    while True:
        file.seek(position)
        chunk = file.read(8)
        if len(chunk) < 8:
            return None
        length = int.from_bytes(chunk[4:], "little")
        if chunk[:4] == b"EXIF":
            return file.read(length)
        position += 8 + length + length % 2
