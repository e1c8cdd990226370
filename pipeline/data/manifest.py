"""The manifest: a log of outcomes as Parquet parts under `<output>/manifest/`.

One part per work unit, written in one atomic PUT; its name depends only on the run and on the
items in it, so a repeated task overwrites its own part. What is current: for an item take the
newest row's work id; within that work done beats failed, then the newest.

Knows no Ray, no torch, no pixels.
"""

import hashlib
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import uris
from pipeline.data import storage
from pipeline.data.schema import MANIFEST_SCHEMA, outcomes_to_table
from pipeline.errors import CatalogError, StorageError
from pipeline.records import DONE, Known, Outcome

_READERS = 16  # parts are small and each GET mostly waits for the store
_LISTINGS = 5  # tries to read a manifest that is being compacted
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
    schema = MANIFEST_SCHEMA if columns is None else pa.schema([MANIFEST_SCHEMA.field(c) for c in columns])
    tables = _tables(output, schema)
    return pa.concat_tables(tables) if tables else schema.empty_table()


def _tables(output: str, schema: pa.Schema) -> list[pa.Table]:
    """All parts; listed anew when one has gone since, because a compaction replaced it."""
    for _ in range(_LISTINGS - 1):
        try:
            return [table for _, table in _read_parts(parts(output), schema)]
        except StorageError as error:
            if error.code != "input-missing":
                raise
    return [table for _, table in _read_parts(parts(output), schema)]


def current(output: str) -> pa.Table:
    """One row per item: what is true now."""
    table = read(output)
    return table.take(_current_rows(table))


def stream_current(output: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    """The rows of `current`, some columns, a table a part: memory is bounded but for `_DECIDING`.

    Raises `StorageError` storage-transient when a run changes the parts meanwhile.
    """
    uris = parts(output)
    masks = _current_masks(uris)
    schema = pa.schema([MANIFEST_SCHEMA.field(column) for column in columns])
    for (uri, table), mask in zip(_read_parts(uris, schema), masks, strict=True):
        if len(table) != len(mask):
            raise StorageError("storage-transient", f"{uri} changed while it was read; a run may be under way")
        yield table.filter(pa.array(mask))


def known(output: str) -> dict[str, Known]:
    """The current state of every item, as planning needs it."""
    table = read(output, _DECIDING)
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
    """For each part which of its rows are current."""
    schema = pa.schema([MANIFEST_SCHEMA.field(column) for column in _DECIDING])
    tables = [table for _, table in _read_parts(uris, schema)]
    everything = pa.concat_tables([schema.empty_table(), *tables])
    keep = np.zeros(len(everything), bool)
    keep[_current_rows(everything)] = True
    return np.split(keep, np.cumsum([len(table) for table in tables])[:-1]) if tables else []


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
