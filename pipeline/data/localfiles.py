"""Local files that appear whole or not at all: written under a hidden name, then renamed or linked.

Knows paths only.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

_PART = ".part"  # ending of files that are being written; their names begin with a dot


def replace(path: str, data: bytes) -> None:
    """`data` becomes the file at `path`; folders come into being as needed."""
    with _written(path, data) as part:
        os.replace(part, path)


def link_new(path: str, data: bytes) -> None:
    """Raises FileExistsError if there is such a file. Needs a file system with hard links, as most are."""
    with _written(path, data) as part:
        os.link(part, path)
        os.remove(part)


@contextmanager
def _written(path: str, data: bytes) -> Iterator[str]:
    """`data` under a hidden name beside `path`; gone again if what is done with it fails."""
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    part = os.path.join(folder, f".{uuid4().hex}{_PART}")
    try:
        with open(part, "xb") as file:
            file.write(data)
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
