"""What waits on local disk for its bucket's turn, where not everything fits into memory at once.

One file without a name in the system's temporary folder (`TMPDIR`): nothing is left of it, however
the process ends.
"""

import os
import pickle
import tempfile
import weakref
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import IO, Any

import numpy as np
import pyarrow as pa

from pipeline.errors import StorageError


class Spill:
    """Things by number of their bucket, in each as they came. Put few large ones rather than many small ones."""

    def __init__(self) -> None:
        self._places: dict[int, list[int]] = defaultdict(list)

    @cached_property
    def _file(self) -> IO[bytes]:
        """Made at the first use: most archives need no disk."""
        file = tempfile.TemporaryFile()  # noqa: SIM115  closed with this object
        weakref.finalize(self, file.close)
        return file

    def put(self, bucket: int, thing: object) -> None:
        """Raises `StorageError` out-of-scratch where the disk is full."""
        try:
            self._places[bucket].append(self._file.seek(0, os.SEEK_END))
            pickle.dump(thing, self._file, pickle.HIGHEST_PROTOCOL)
            self._file.flush()
        except OSError as error:
            full = f"no room to plan in {tempfile.gettempdir()}: {error.strerror}; set TMPDIR to a larger disk"
            raise StorageError("out-of-scratch", full) from None

    def put_rows(self, rows: pa.Table, place: Callable[[str], int]) -> None:
        """Each row of a table into the bucket of its `item_id`."""
        buckets = np.fromiter(map(place, rows["item_id"].to_pylist()), np.int64, len(rows))
        for bucket in np.unique(buckets):
            self.put(int(bucket), rows.filter(pa.array(buckets == bucket)))

    def get(self, bucket: int) -> Iterator[Any]:
        for place in self._places.get(bucket, ()):
            self._file.seek(place)
            yield pickle.load(self._file)

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self._file.seek(0, os.SEEK_END) if self._places else 0
