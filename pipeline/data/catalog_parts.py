"""A catalog as a folder of Parquet parts that is rewritten only where it changed.

    part-<digest>.parquet   rows in the order of `listing.walk`; named by its content
    _index.json             which parts are the catalog, and in which order: written last

A part ends where the checksum of an image's uri says so, so a row more or less changes one part
and not those after it. Readers that know `_index.json` never see half a change: parts that a change
supersedes stay until the next change, for those who began to read before it. One writer at a time:
`writing`. Knows no storage listing and no sidecar.
"""

import hashlib
import io
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import uris
from pipeline.data import lease, storage
from pipeline.errors import CatalogError, LeaseHeld, StorageError

Row = dict[str, Any]

STATE = "_index.json"

_TEXTS = ("uri", "id", "kernel", "phase", "etag", "hr_uri", "problem")
_SOURCES = ("scale_source", "sigma_source", "kernel_source", "phase_source")
_NOTES = ("mode", "sidecar", "sidecar_etag")  # for the next indexing
SCHEMA = pa.schema(
    [(name, pa.string()) for name in (*_TEXTS, *_SOURCES, *_NOTES)]
    + [(name, pa.int64()) for name in ("scale", "width", "height", "size", "page")]
    + [("sigma", pa.float64()), ("kernel_values", pa.list_(pa.list_(pa.float64())))]
)
_USUAL_ROWS, _MOST_ROWS = 8192, 32768
_BATCH_ROWS = 1024
_PART = re.compile(r"/part-[0-9a-f]{24}\.parquet$")


def state(catalog: str) -> dict[str, Any] | None:
    """What the newest indexing left, or None where there is none."""
    try:
        found: dict[str, Any] = json.loads(storage.read_bytes(uris.join(catalog, STATE)))
    except StorageError as error:
        if error.code == "input-missing":
            return None
        raise
    except ValueError:
        raise CatalogError(f"{uris.join(catalog, STATE)} is damaged; delete it and index again") from None
    return found


def is_part(uri: str) -> bool:
    """Whether a file is named as parts are."""
    return _PART.search(uri) is not None


def parts(catalog: str) -> list[str] | None:
    """URIs of the parts in order, or None where the folder is no indexed catalog."""
    found = state(catalog)
    return None if found is None else [uris.join(catalog, name) for name in found["parts"]]


def rows(catalog: str, found: dict[str, Any] | None) -> Iterator[Row]:
    """Every row, one part in memory at a time."""
    for name in found["parts"] if found else ():
        table = pq.ParquetFile(io.BytesIO(storage.read_bytes(uris.join(catalog, name))))
        for batch in table.iter_batches(_BATCH_ROWS):
            yield from batch.to_pylist()


@contextmanager
def writing(catalog: str, *, seconds: float, say: Callable[[str], None] = print) -> Iterator[Callable[[], None]]:
    """Inside, no other process writes `catalog`: a lease, as runs have of their output. seconds: its time to live.

    Gives a check to call before the last word: raises `LeaseHeld` where another has taken over.
    """
    name = f"index-{datetime.now(UTC):%Y%m%dT%H%M%S-%f}"
    try:
        held = lease.acquire(catalog, name, seconds=seconds, say=say)
    except LeaseHeld as error:
        raise LeaseHeld(f"the catalog {catalog} is being written: {error}") from None

    def check() -> None:
        if held.lost is not None:
            raise LeaseHeld(f"{held.lost} took over the catalog {catalog}; nothing was changed, index again")

    try:
        yield check
    finally:
        held.release()


def write(catalog: str, new: Iterable[Row], *, before: dict[str, Any] | None, about: dict[str, Any]) -> tuple[int, int]:
    """Make `new` rows the catalog; parts that are there already are left alone.

    before: the state that is replaced. about: goes into the new state. Returns how many parts there
    are and how many had to be written. To be called inside `writing`.
    """
    old = set(before["parts"]) if before else set()
    names, written, count = [], 0, 0
    for group in _cut(new):
        data = _parquet(group)
        name = f"part-{hashlib.sha256(data).hexdigest()[:24]}.parquet"
        if name not in old:
            storage.write_bytes(uris.join(catalog, name), data)
            written += 1
        names.append(name)
        count += len(group)
    superseded = _superseded(before, names)
    text = json.dumps({**about, "rows": count, "parts": names, "superseded": superseded}, indent=1)
    storage.write_bytes(uris.join(catalog, STATE), text.encode())
    _sweep(catalog, {*names, *superseded})
    return len(names), written


def _superseded(before: dict[str, Any] | None, names: list[str]) -> list[str]:
    """Parts of the catalog before its last change, which somebody may be reading."""
    if before is None:
        return []
    gone = before["parts"] if before["parts"] != names else before.get("superseded", [])
    return [name for name in gone if name not in names]


def _cut(new: Iterable[Row]) -> Iterator[list[Row]]:
    """Groups of some thousands of rows; all pages of an image are in one."""
    group: list[Row] = []
    for row in new:
        if group and row["uri"] != group[-1]["uri"] and (_ends(group[-1]["uri"]) or len(group) >= _MOST_ROWS):
            yield group
            group = []
        group.append(row)
    if group:
        yield group


def _ends(uri: str) -> bool:
    return zlib.crc32(uri.encode("utf-8", "surrogatepass")) % _USUAL_ROWS == 0


def _parquet(group: list[Row]) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_pylist(group, schema=SCHEMA), sink, compression="zstd")
    return bytes(sink.getvalue())


def _sweep(catalog: str, kept: set[str]) -> None:
    """Delete parts that are not to be kept: of earlier changes, or of an indexing that broke off."""
    for uri in storage.list_files(catalog, (".parquet",)):
        name = uri[len(uris.absolute(catalog)) + 1 :]
        if name.startswith("part-") and name not in kept:
            storage.delete(uri)
