"""Upkeep of the manifest: rows that no longer hold are forgotten, small parts become few sorted files.

Only who holds the lease may do this. Each part is replaced or made by one atomic PUT, and a merged
part is there before the parts it replaces go, so a reader may see a row twice meanwhile, never none;
`manifest.current` and the README's query show it once. Knows no Ray.
"""

import hashlib
import io
from collections.abc import Callable, Collection, Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline import uris
from pipeline.data import manifest, storage
from pipeline.data.schema import MANIFEST_SCHEMA

Mask = npt.NDArray[np.bool_]

SMALL_ROWS = 50_000  # a part with fewer rows is small
LARGE_ROWS = 200_000  # of a merged part, at most: some ten MB, read whole by few
MANY_PARTS = 256  # small ones; a listing and as many GETs begin to be felt


def take_back(output: str, run_id: str, error_code: str) -> int:
    """Forget what a run recorded as failed by `error_code`: it says nothing of these items. Returns how many."""

    def gone(table: pa.Table) -> Mask:
        return _mask(pc.and_(pc.equal(table["run_id"], run_id), pc.equal(table["error_code"], error_code)))

    return _forget(output, ("run_id", "error_code"), gone)


def forget(output: str, item_ids: Collection[str]) -> int:
    """Forget all rows of these items, so that the next plan restores them again. Returns how many."""
    wanted = pa.array(list(item_ids), pa.string())
    return _forget(output, ("item_id",), lambda table: _mask(pc.is_in(table["item_id"], wanted)))


def compact(output: str, *, small: int = SMALL_ROWS, large: int = LARGE_ROWS) -> tuple[int, int]:
    """Merge the small parts into few, sorted by item id; superseded rows go. Returns parts before and after.

    small: a part of fewer rows is merged. large: rows of a merged part, at most. Parts of full size
    stay as they are, so that an archive of any size is kept tidy with a bounded memory.
    """
    manifest.settle(output)
    before = manifest.parts(output)
    sizes = {uri: _rows(uri) for uri in before}
    for group in _groups([uri for uri in before if sizes[uri] < small], sizes, large):
        _merge(output, group)
    manifest.settle(output)  # what a compaction that was cut short left twice
    return len(before), len(manifest.parts(output))


def needs_compaction(output: str) -> bool:
    """True where there are so many parts that reading the manifest is slow."""
    return len(manifest.parts(output)) > MANY_PARTS


def doubled(output: str) -> list[str]:
    """Items of which a plain read shows more than one row, sorted."""
    counts = pc.value_counts(manifest.read(output, ["item_id"])["item_id"])
    return sorted(str(entry["values"]) for entry in counts.to_pylist() if entry["counts"] > 1)


def _groups(small: list[str], sizes: dict[str, int], large: int) -> Iterator[list[str]]:
    """Small parts that together make one merged part; a single one stays."""
    group: list[str] = []
    for uri in small:
        if group and sum(sizes[other] for other in group) + sizes[uri] > large:
            yield group
            group = []
        group.append(uri)
    if len(group) > 1:
        yield group


def _merge(output: str, group: list[str]) -> None:
    """The rows of `group` as one part. Its name is that of its content, so a repeated merge overwrites itself."""
    tables = [table for _, table in manifest._read_parts(group, MANIFEST_SCHEMA)]
    table = pa.concat_tables(tables).sort_by([("item_id", "ascending"), ("written_at", "ascending")])
    data = manifest._parquet(table)
    merged = uris.join(manifest.folder(output), f"merged-{hashlib.sha256(data).hexdigest()[:16]}.parquet")
    storage.write_bytes(merged, data)
    for uri in group:
        if uri != merged:
            storage.delete(uri)


def _forget(output: str, columns: tuple[str, ...], gone: Callable[[pa.Table], Mask]) -> int:
    schema = pa.schema([MANIFEST_SCHEMA.field(name) for name in columns])
    count = 0
    for uri, table in manifest._read_parts(manifest.parts(output), schema):
        mask = gone(table)
        if mask.any():
            manifest._drop_rows(uri, ~mask)
            count += int(mask.sum())
    return count


def _mask(condition: pa.ChunkedArray) -> Mask:
    return np.asarray(condition.fill_null(False).to_numpy(), bool)


def _rows(uri: str) -> int:
    return int(pq.ParquetFile(io.BytesIO(storage.read_bytes(uri))).metadata.num_rows)
