"""The manifest: a log of outcomes as Parquet parts under `<output>/manifest/`.

One part per work unit, written in one atomic PUT; its name depends only on the run and on the
items in it, so a repeated task overwrites its own part. What is current: for an item take the
newest row's work id; within that work done beats failed, then the newest.

Knows no Ray, no torch, no pixels.
"""

import hashlib
import io
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import uris
from pipeline.data import storage
from pipeline.data.schema import MANIFEST_SCHEMA, outcomes_to_table
from pipeline.data.spill import Spill
from pipeline.errors import CatalogError, StorageError
from pipeline.records import DONE, Known, Outcome

T = TypeVar("T")

_READERS = 16  # parts are small and each GET mostly waits for the store
_LISTINGS = 5  # tries to read a manifest that is being compacted
_BULK_ROWS, _BULK_PARTS = 50_000, 1_000  # of small parts put together: even a table of one row takes kilobytes
_ROWS_AT_ONCE = 1_000_000  # whose `_DECIDING` are compared in memory, at some 0.3 kB; more go by way of the disk
_BUCKETS = 64  # of them then
_DECIDING = ("item_id", "work_id", "status", "error_code", "attempts", "written_at")


def folder(output: str) -> str:
    """Where the parts of `output` lie."""
    return uris.join(output, "manifest")


def write_part(output: str, run_id: str, outcomes: Sequence[Outcome]) -> str:
    """Record outcomes as one part; returns its URI. Same run and items: same part, overwritten."""
    ids = hashlib.sha256("\n".join(sorted(outcome.item_id for outcome in outcomes)).encode()).hexdigest()
    uri = uris.join(folder(output), f"{run_id}-{ids[:16]}.parquet")
    storage.write_bytes(uri, _parquet(outcomes_to_table(outcomes)))
    return uri


def parts(output: str) -> list[str]:
    """URIs of all parts, sorted."""
    return list(storage.list_files(folder(output), (".parquet",)))


def read(output: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Every row of every part, superseded ones too; the schema's columns, or some of them."""
    schema = MANIFEST_SCHEMA if columns is None else _schema(columns)
    return _of_parts(output, lambda uris: pa.concat_tables([schema.empty_table(), *_bulk(_tables(uris, schema))]))


def _of_parts(output: str, read_all: Callable[[list[str]], T]) -> T:
    """`read_all` of all parts; listed anew when one has gone since, because a compaction replaced it."""
    for _ in range(_LISTINGS - 1):
        try:
            return read_all(parts(output))
        except StorageError as error:
            if error.code != "input-missing":
                raise
    return read_all(parts(output))


def _schema(columns: Sequence[str]) -> pa.Schema:
    return pa.schema([MANIFEST_SCHEMA.field(column) for column in columns])


def _tables(uris: Sequence[str], schema: pa.Schema) -> Iterator[pa.Table]:
    return (table for _, table in _read_parts(uris, schema))


def _bulk(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The same rows in few tables."""
    held: list[pa.Table] = []
    rows = 0
    for table in tables:
        held.append(table)
        rows += len(table)
        if rows >= _BULK_ROWS or len(held) >= _BULK_PARTS:
            yield pa.concat_tables(held).combine_chunks()
            held, rows = [], 0
    if held:
        yield pa.concat_tables(held).combine_chunks()


def current(output: str) -> pa.Table:
    """One row per item: what is true now."""
    table = read(output)
    return table.take(_current_rows(table))


def stream_current(output: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    """The rows of `current`, some columns, a table a part; memory is bounded.

    Raises `StorageError` storage-transient when a run changes the parts meanwhile.
    """
    uris = parts(output)
    masks = _current_masks(uris)
    for (uri, table), mask in zip(_read_parts(uris, _schema(columns)), masks, strict=True):
        if len(table) != len(mask):
            raise StorageError("storage-transient", f"{uri} changed while it was read; a run may be under way")
        yield table.filter(pa.array(mask))


def known(output: str) -> dict[str, Known]:
    """The current state of every item, as planning needs it."""
    return known_in([read(output, _DECIDING)])


def spilled(output: str, place: Callable[[str], int]) -> Spill:
    """What `known` is made of, on local disk by bucket. place: an item id's bucket."""
    return _of_parts(output, lambda uris: _spread(_bulk(_tables(uris, _schema(_DECIDING))), place))


def _spread(tables: Iterable[pa.Table], place: Callable[[str], int]) -> Spill:
    spill = Spill()
    for table in tables:
        spill.put_rows(table, place)
    return spill


def known_in(tables: Iterable[pa.Table]) -> dict[str, Known]:
    """The current state of the items that these rows, all there are of them, are about."""
    table = pa.concat_tables([_schema(_DECIDING).empty_table(), *tables])
    rows = table.take(_current_rows(table)).select(_DECIDING[:5]).to_pydict()
    return {item_id: Known(*values) for item_id, *values in zip(*(rows[name] for name in _DECIDING[:5]), strict=True)}


def settle(output: str) -> int:
    """Rewrite the parts that hold superseded rows without them, so a plain read shows what is true.

    Each part is replaced by one atomic PUT, or deleted when nothing of it is left. Returns how many
    rows went.
    """
    uris = parts(output)
    masks = _current_masks(uris)
    for uri, mask in zip(uris, masks, strict=True):
        if not mask.all():
            _drop_rows(uri, mask)
    return sum(int((~mask).sum()) for mask in masks)


def _current_masks(uris: Sequence[str]) -> list[npt.NDArray[np.bool_]]:
    """For each part which of its rows are current: a byte a row, the rest on disk where there are many."""
    sizes: list[int] = []

    def counted() -> Iterator[pa.Table]:
        for table in _tables(uris, _schema(_DECIDING)):
            sizes.append(len(table))
            yield table

    groups = _groups(_numbered(_bulk(counted())))
    keep = np.zeros(sum(sizes), bool)
    for table in groups:
        keep[table["number"].to_numpy()[_current_rows(table)]] = True
    return np.split(keep, np.cumsum(sizes)[:-1]) if sizes else []


def _numbered(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """With a column of the rows' numbers."""
    begin = 0
    for table in tables:
        yield table.append_column("number", pa.array(np.arange(begin, begin + len(table))))
        begin += len(table)


def _groups(tables: Iterable[pa.Table]) -> Iterator[pa.Table]:
    """The rows in tables that fit into memory, all rows of an item in one. All are taken before this returns."""
    held: list[pa.Table] = []
    rows, spill = 0, Spill()
    for table in tables:
        held.append(table)
        rows += len(table)
        if rows > _ROWS_AT_ONCE:
            _put_away(held, spill)
    if rows <= _ROWS_AT_ONCE:
        return iter([pa.concat_tables(held)] if held else [])
    _put_away(held, spill)
    groups = (list(spill.get(bucket)) for bucket in range(_BUCKETS))
    return (pa.concat_tables(group) for group in groups if group)


def _put_away(held: list[pa.Table], spill: Spill) -> None:
    for table in held:
        spill.put_rows(table, lambda item: zlib.crc32(item.encode()) % _BUCKETS)
    held.clear()


def _current_rows(table: pa.Table) -> npt.NDArray[np.int64]:
    """Indices of the current rows, in the table's order."""
    if not len(table):
        return np.zeros(0, np.int64)
    item, work = (_codes(table, name) for name in ("item_id", "work_id"))
    when = table["written_at"].cast(pa.int64()).fill_null(0).to_numpy()
    done = pc.equal(table["status"], DONE).to_numpy(zero_copy_only=False)
    newest = _last_of_each(item, np.lexsort((when, item)))
    of_newest_work = np.flatnonzero(work == work[newest][np.searchsorted(item[newest], item)])
    order = of_newest_work[np.lexsort((when[of_newest_work], done[of_newest_work], item[of_newest_work]))]
    current: npt.NDArray[np.int64] = np.sort(_last_of_each(item, order))
    return current


def _codes(table: pa.Table, name: str) -> npt.NDArray[np.int64]:
    indices = table[name].combine_chunks().dictionary_encode().indices
    return np.asarray(indices.to_numpy(zero_copy_only=False), np.int64)


def _last_of_each(group: npt.NDArray[np.int64], order: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Of rows in `order` (grouped), the last one of each group."""
    grouped = group[order]
    last = np.append(grouped[1:] != grouped[:-1], True)
    rows: npt.NDArray[np.int64] = order[last]
    return rows


def _read_parts(uris: Sequence[str], schema: pa.Schema) -> Iterator[tuple[str, pa.Table]]:
    """Each part with the schema's columns, in order; a few are fetched ahead, never all."""

    def load(uri: str) -> tuple[str, pa.Table]:
        data = storage.read_bytes(uri)
        try:
            file = pq.ParquetFile(io.BytesIO(data))
            present = [name for name in schema.names if name in file.schema_arrow.names]
            return uri, _to_schema(file.read(columns=present), schema)
        except (pa.ArrowException, OSError) as error:
            mend = "delete it, and the next run restores its items again"
            raise CatalogError(f"{uri} is no part of a manifest: {error}; {mend}") from None

    with ThreadPoolExecutor(_READERS) as pool:
        for begin in range(0, len(uris), 2 * _READERS):
            yield from pool.map(load, uris[begin : begin + 2 * _READERS])


def _to_schema(table: pa.Table, schema: pa.Schema) -> pa.Table:
    """Columns a part of an older version lacks come as nulls."""
    columns = [
        table[f.name].cast(f.type) if f.name in table.column_names else pa.nulls(len(table), f.type) for f in schema
    ]
    return pa.table(columns, schema=schema)


def _drop_rows(uri: str, keep: npt.NDArray[np.bool_]) -> None:
    if not keep.any():
        storage.delete(uri)
        return
    table = pq.read_table(io.BytesIO(storage.read_bytes(uri)))
    storage.write_bytes(uri, _parquet(table.filter(pa.array(keep))))


def _parquet(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue())
