"""Clean photographs to train on, from any folder or bucket: as many as fit into memory.

A photograph that cannot be used (damaged, too small) is left out and named; it stops nothing.
"""

import hashlib
from collections.abc import Callable, Iterable

import numpy as np
import numpy.typing as npt

from pipeline import uris
from pipeline.data import images, storage
from pipeline.errors import ItemError

Photograph = npt.NDArray[np.uint8]  # (h, w, 3)

ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp")
_MOST_PIXELS = 2**28


def in_random_order(folder: str) -> list[str]:
    """URIs of all images below `folder`, in an order that depends on their names alone."""
    found = storage.list_files(uris.absolute(folder), ENDINGS)
    return sorted(found, key=lambda uri: hashlib.sha256(uri.rsplit("/", 1)[-1].encode()).hexdigest())


def load_up_to(
    found: Iterable[str], megapixels: float, *, smallest: int, notice: Callable[[str], None]
) -> list[Photograph]:
    """The first photographs that hold `megapixels` together. (h, w, 3) uint8; gray ones are repeated.

    smallest: pixels that height and width must have. notice: is told what is left out, and why.
    """
    loaded: list[Photograph] = []
    room = megapixels * 1e6
    for uri in found:
        if room <= 0:
            notice(f"megapixels: {megapixels:g} are full after {len(loaded)} photographs; the rest is left out")
            break
        try:
            photograph = load(uri, smallest)
        except ItemError as error:
            notice(f"left out: {uris.without_query(uri)}: {error}")
            continue
        loaded.append(photograph)
        room -= photograph.shape[0] * photograph.shape[1]
    return loaded


def load(uri: str, smallest: int) -> Photograph:
    """(h, w, 3) uint8. Raises `ItemError` when it cannot be read or is smaller than `smallest`."""
    pixels = images.decode(storage.read_bytes(uri), max_pixels=_MOST_PIXELS).pixels_hwc
    if pixels.dtype != np.uint8:
        raise ItemError("unsupported-mode", "training takes 8 bits a sample")
    if min(pixels.shape[:2]) < smallest:
        raise ItemError("bad-metadata", f"{pixels.shape[1]}×{pixels.shape[0]}, smaller than recipe.patch = {smallest}")
    return np.ascontiguousarray(np.broadcast_to(pixels, (*pixels.shape[:2], 3)))
