"""Pillow's process-wide switches, set for the length of a call and put back after it.

Unfold checks sizes from the header by its own limits, so Pillow's pixel limit would only get in
the way; its warnings about odd metadata are no news; cut files must stay errors. And what it raises on
damaged ones. Knows no format.
"""

import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from PIL import Image, ImageFile

# What Pillow and the codecs beside it raise on damaged files, found by flipping and cutting bytes.
DAMAGE = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    AssertionError,
    RuntimeError,
    struct.error,
    zlib.error,
)

_lock = threading.Lock()
_inside = 0  # calls in flight, in all threads
_restore = ExitStack()


@contextmanager
def own_rules() -> Iterator[None]:
    """No warnings from Pillow, no pixel limit of its own, no tolerance for cut files.

    Threads may overlap: the first one in sets the switches, the last one out puts them back.
    """
    global _inside
    with _lock:
        if _inside == 0:
            _set_switches()
        _inside += 1
    try:
        yield
    finally:
        with _lock:
            _inside -= 1
            if _inside == 0:
                _restore.close()


def _set_switches() -> None:
    _restore.enter_context(warnings.catch_warnings())
    warnings.filterwarnings("ignore", module=r"PIL\.")
    _restore.callback(setattr, Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
    _restore.callback(setattr, ImageFile, "LOAD_TRUNCATED_IMAGES", ImageFile.LOAD_TRUNCATED_IMAGES)
    Image.MAX_IMAGE_PIXELS = None
    ImageFile.LOAD_TRUNCATED_IMAGES = False
