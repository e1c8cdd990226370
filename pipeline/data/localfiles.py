"""Local files that appear whole or not at all: written under a hidden name, then renamed or linked.

Knows paths only.
"""

import io
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO
from uuid import uuid4

_PIECE = 2**22  # bytes copied at once
_PART = ".part"  # ending of files that are being written; their names begin with a dot


def replace(path: str, data: bytes) -> None:
    """`data` becomes the file at `path`; folders come into being as needed."""
    with _written(path, io.BytesIO(data)) as part:
        os.replace(part, path)


def link_new(path: str, data: bytes) -> None:
    """Raises FileExistsError if there is such a file. Needs a file system with hard links, as most are."""
    with _written(path, io.BytesIO(data)) as part:
        os.link(part, path)
        os.remove(part)


def copy(source: str, path: str) -> None:
    """A copy of the file `source` becomes the file at `path`, in pieces; folders come into being as needed."""
    with open(source, "rb") as file, _written(path, file) as part:
        os.replace(part, path)


@contextmanager
def _written(path: str, content: BinaryIO) -> Iterator[str]:
    """`content` under a hidden name beside `path`; gone again if what is done with it fails."""
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    part = os.path.join(folder, f".{uuid4().hex}{_PART}")
    try:
        with open(part, "xb") as file:
            shutil.copyfileobj(content, file, _PIECE)
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave the name without the bytes
        yield part
    except BaseException:
        if os.path.exists(part):
            os.remove(part)
        raise


def is_temporary(uri: str) -> bool:
    """True for a local file that was being written when its process ended."""
    name = uri.rpartition("/")[2]
    return name.startswith(".") and name.endswith(_PART)
