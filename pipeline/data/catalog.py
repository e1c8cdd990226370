"""Catalogs: tables of items in Parquet, CSV or JSON Lines, one file or a folder of them, row by row.

A row is a dict with exactly the keys of `COLUMNS`; absent, null and empty values are None. What
cannot be a table is a `CatalogError`; what is merely wrong in one row stays as it was written, so
that this item fails and not the catalog.

Knows no image, no default and no limit: those are `pipeline.resolve`'s business.
"""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from decimal import Decimal
from itertools import chain
from posixpath import dirname
from typing import NoReturn

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import uris
from pipeline.data import catalog_parts, storage
from pipeline.errors import ERROR_CODES, CatalogError, ItemError, StorageError

Row = dict[str, object]

SOURCE_COLUMNS = ("scale_source", "sigma_source", "kernel_source", "phase_source")
TEXT_COLUMNS = ("uri", "id", "kernel", "phase", "etag", "hr_uri", "problem", *SOURCE_COLUMNS)
NUMBER_COLUMNS = ("scale", "sigma", "width", "height", "size", "page")
COLUMNS = (*TEXT_COLUMNS, *NUMBER_COLUMNS, "kernel_values")

ENDINGS = (".parquet", ".csv", ".jsonl", ".ndjson", ".json-lines")

_BATCH_ROWS = 1024  # a row may hold a whole kernel, so batches stay small
_LARGEST_CELL = 2**27  # characters; csv's own limit of 128 Ki is less than an 80x80 kernel


def read_catalog(uri: str) -> Iterator[Row]:
    """Every row of a catalog, file by file in the order of their names.

    uri: of a file, or of a folder with files that end in `ENDINGS`; names that start with "." or
    "_" are skipped. Raises `CatalogError` naming file, line and mend, maybe after some rows, and
    `StorageError` storage-transient where a later try may succeed.
    """
    for file in _files(uri):
        data = _fetch(file)
        if file.lower().endswith(".parquet"):
            yield from _parquet_rows(data, file)
        elif file.lower().endswith(".csv"):
            yield from _csv_rows(data, file)
        else:
            yield from _json_rows(data, file)


def most_rows(uri: str) -> int:
    """How many rows a catalog has, exactly or at most: of text files the lines are counted.

    Raises as `read_catalog`.
    """
    files = _files(uri)
    if not uri.lower().endswith(ENDINGS) and (state := catalog_parts.state(uris.absolute(uri))) is not None:
        return int(state["rows"])
    return sum(map(_most_rows, files))


def _most_rows(file: str) -> int:
    data = _fetch(file)
    if not file.lower().endswith(".parquet"):
        return max(data.count(b"\n"), data.count(b"\r")) + 1
    try:
        return int(pq.read_metadata(pa.BufferReader(data)).num_rows)
    except (pa.ArrowException, OSError) as error:
        _refuse_unsound(file, error)


def catalog_root(uri: str, override: str | None = None) -> str:
    """The absolute URI that relative URIs of a catalog are below: `override`, else its folder.

    uri: of a file (its folder is taken) or of a folder (taken itself; but one whose name ends like
    a catalog file, as Spark writes them, counts as that file).
    """
    try:
        if override is not None:
            return uris.absolute(override)
        whole = uris.absolute(uri)
    except ItemError as error:
        raise CatalogError(f"{'catalog' if override is None else 'catalog_root'}: {error}") from None
    return dirname(whole) if whole.lower().endswith(ENDINGS) else whole


def _files(uri: str) -> list[str]:
    try:
        base = uris.absolute(uri)
        if not base.lower().endswith(ENDINGS) and (parts := catalog_parts.parts(base)) is not None:
            return parts
        files = [file for file in storage.list_files(base, ENDINGS) if not _is_hidden(file, base)]
        if not files and storage.exists(base):
            _refuse(uri, f"is a file of a kind not known here; its name must end in {', '.join(ENDINGS)}")
    except ItemError as error:
        _refuse_unreadable(uri, error)
    if not files:
        _refuse(uri, f"is no file and no folder with files ending in {', '.join(ENDINGS)}; correct `catalog`")
    return files


def _is_hidden(file: str, base: str) -> bool:
    """Spark's _SUCCESS, _temporary/ and checksums are no part of a table."""
    return any(part.startswith((".", "_")) for part in file[len(base) :].split("/"))


def _fetch(file: str) -> bytes:
    try:
        return storage.read_bytes(file)
    except ItemError as error:
        if error.code == "input-missing" and catalog_parts.is_part(file):
            why = "it was indexed twice while it was read, or a part was deleted; run again, if it stays index again"
            raise StorageError("storage-transient", f"the catalog's part {file} is gone: {why}") from None
        _refuse_unreadable(file, error)


def _parquet_rows(data: bytes, file: str) -> Iterator[Row]:
    try:
        table = pq.ParquetFile(pa.BufferReader(data))
        names = _checked_columns(table.schema_arrow.names, file)
        for batch in table.iter_batches(_BATCH_ROWS, columns=names):
            yield from map(_row, batch.to_pylist())
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        _refuse_unsound(file, error)


def _csv_rows(data: bytes, file: str) -> Iterator[Row]:
    csv.field_size_limit(_LARGEST_CELL)
    records = _csv_records(data, file)
    _, header = next(records, (1, []))
    columns = [name.strip() for name in header]
    _checked_columns(columns, file)
    for line, cells in records:
        if len(cells) != len(columns):
            _refuse(file, f"has {len(cells)} cells where the header has {len(columns)}; {_QUOTING}", line)
        yield _row({name: _parsed(name, cell) for name, cell in zip(columns, cells, strict=True)})


_QUOTING = 'put values that hold a comma, a quote or a line break into "double quotes"'


def _csv_records(data: bytes, file: str) -> Iterator[tuple[int, list[str]]]:
    """The line each record starts on, and its cells; blank lines are left out."""
    text = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8-sig", newline="")
    reader = csv.reader(text, strict=True)
    line = 1
    try:
        for cells in reader:
            if cells:
                yield line, cells
            line = reader.line_num + 1
    except UnicodeDecodeError:
        _refuse(file, _NO_UTF8, _undecodable_line(data))
    except csv.Error as error:
        _refuse(file, f"is no valid CSV: {error}; {_QUOTING}", line)


_NO_UTF8 = "is no UTF-8 text; save the file in the encoding UTF-8"


def _undecodable_line(data: bytes) -> int:
    """The number of the first line that is no UTF-8; `data` has one."""
    lines = enumerate(data.split(b"\n"), start=1)
    return next(number for number, line in lines if not _is_utf8(line))


def _is_utf8(line: bytes) -> bool:
    try:
        line.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def _json_rows(data: bytes, file: str) -> Iterator[Row]:
    """A table without a header: it has a column `uri` if any row has."""
    records = _json_records(data.removeprefix(b"\xef\xbb\xbf"), file)
    head = []
    for record in records:
        head.append(record)
        if "uri" in record:
            break
    else:
        if head:
            _checked_columns(sorted(set().union(*head)), file)
    yield from map(_row, chain(head, records))


def _json_records(data: bytes, file: str) -> Iterator[Row]:
    for number, line in enumerate(io.BytesIO(data), start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line.decode("utf-8"), object_pairs_hook=_unique)
        except UnicodeDecodeError:
            _refuse(file, _NO_UTF8, number)
        except (ValueError, RecursionError) as error:
            _refuse(file, f"is no valid JSON: {_first_line(error)}; write one JSON object a line", number)
        if not isinstance(record, dict):
            _refuse(file, 'is no JSON object; write one object a line, like {"uri": "a.png"}', number)
        yield record


def _unique(pairs: Sequence[tuple[str, object]]) -> Row:
    record = dict(pairs)
    if len(record) < len(pairs):
        raise ValueError(f"{_doubles([name for name, _ in pairs])} is there twice")
    return record


def _checked_columns(names: Sequence[str], file: str) -> list[str]:
    """The known ones among a file's columns."""
    if doubles := _doubles([name for name in names if name]):
        _refuse(file, f"has the column {doubles} twice; rename or remove one")
    if "uri" not in names:
        found = ", ".join(map(repr, names))[:200] or "none"
        _refuse(file, f"has no column `uri` (it has {found}); name the column with the images' URIs so")
    return [name for name in names if name in COLUMNS]


def _doubles(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in dict.fromkeys(names) if names.count(name) > 1)


def _row(record: Row) -> Row:
    return {name: _present(record.get(name)) for name in COLUMNS}


def _present(value: object) -> object:
    """None for "", and a float for a decimal: what DuckDB writes for 2.55."""
    if isinstance(value, Decimal):
        return float(value)
    return None if value == "" else value


def _parsed(column: str, cell: str) -> object:
    """A CSV cell in its column's type; as it stands where it is no such thing."""
    try:
        if column == "kernel_values":
            return json.loads(cell)
        if column in NUMBER_COLUMNS and "_" not in cell:  # Python would read 1_0 as 10
            return _number(cell)
    except (ValueError, RecursionError):
        pass
    return cell


def _number(cell: str) -> int | float:
    try:
        return int(cell)
    except ValueError:
        return float(cell)


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0] or type(error).__name__


def _refuse(file: str, what: str, line: int | None = None) -> NoReturn:
    where = "" if line is None else f" line {line}"
    raise CatalogError(f"catalog {file}{where} {what}")


def _refuse_unsound(file: str, error: Exception) -> NoReturn:
    _refuse(file, f"is no sound Parquet file: {_first_line(error)}; write it again")


def _refuse_unreadable(file: str, error: ItemError) -> NoReturn:
    if error.code == "storage-transient":
        raise error
    raise CatalogError(f"catalog {file} cannot be read: {error}; {ERROR_CODES[error.code].mend}") from None
