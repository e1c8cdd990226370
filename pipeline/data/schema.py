"""Rows as Arrow tables: the manifest, the planned items, and work on its way between stages.

The one place where a record's fields become columns. The columns are derived from the dataclasses
of `pipeline.records`, so the two cannot disagree.

Pixels travel as `large_binary` with their shape and sample type beside them: written with one
copy, read as a view of the Arrow buffer, and no block can mix up dtypes. Knows no Ray.
"""

import types
from collections.abc import Iterator, Sequence
from dataclasses import fields
from datetime import datetime
from typing import Any, Union, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from pipeline.records import Degradation, Item, Outcome, Picture, Work, checked_sigma

_ARROW_TYPES: dict[object, pa.DataType] = {
    str: pa.string(),
    int: pa.int64(),
    float: pa.float64(),
    bool: pa.bool_(),
    bytes: pa.large_binary(),
    datetime: pa.timestamp("us", tz="UTC"),
    list[list[float]]: pa.list_(pa.list_(pa.float64())),
    tuple[float, float]: pa.list_(pa.float64(), 2),
}


def _arrow_type(hint: object) -> pa.DataType:
    if get_origin(hint) in (Union, types.UnionType):
        (hint,) = (option for option in get_args(hint) if option is not type(None))
    return _ARROW_TYPES[hint]


def _schema_of(record: type, leave_out: Sequence[str] = ()) -> pa.Schema:
    hints = get_type_hints(record)
    names = [field.name for field in fields(record) if field.name not in leave_out]
    return pa.schema([(name, _arrow_type(hints[name])) for name in names])


ITEM_SCHEMA = _schema_of(Item)
MANIFEST_SCHEMA = _schema_of(Outcome)
_FACTS_SCHEMA = _schema_of(Picture, leave_out=("pixels_hwc", "alpha_hw"))
_SHAPE = pa.list_(pa.int64())
WORK_SCHEMA = pa.schema(
    [
        ("item", pa.struct(list(ITEM_SCHEMA))),
        ("outcome", pa.struct(list(MANIFEST_SCHEMA))),
        ("picture", pa.struct(list(_FACTS_SCHEMA))),
        ("sample_type", pa.string()),
        ("pixels", pa.large_binary()),
        ("shape", _SHAPE),
        ("alpha", pa.large_binary()),
        ("kernel", pa.large_binary()),
        ("kernel_shape", _SHAPE),
    ]
)


def items_to_table(items: Sequence[Item]) -> pa.Table:
    """Planned items, one row each."""
    return pa.Table.from_pylist([_values(item) for item in items], schema=ITEM_SCHEMA)


def _values(item: Item) -> dict[str, object]:
    return {name: getattr(item, name) for name in ITEM_SCHEMA.names}


def table_to_items(table: pa.Table) -> list[Item]:
    return [Item(**row) for row in table.to_pylist()]


def outcomes_to_table(outcomes: Sequence[Outcome]) -> pa.Table:
    """Manifest rows."""
    return pa.Table.from_pylist([vars(outcome) for outcome in outcomes], schema=MANIFEST_SCHEMA)


def table_to_outcomes(table: pa.Table) -> list[Outcome]:
    return [Outcome(**row) for row in table.to_pylist()]


def work_to_table(works: Sequence[Work]) -> pa.Table:
    """Work between two stages; pixels are copied once, into the Arrow buffer."""
    pictures = [work.picture for work in works]
    kernels = [None if work.degradation is None else work.degradation.kernel for work in works]
    columns = {
        "item": [_values(work.item) for work in works],
        "outcome": [vars(work.outcome) for work in works],
        "picture": [p and {name: getattr(p, name) for name in _FACTS_SCHEMA.names} for p in pictures],
        "sample_type": [p and p.pixels_hwc.dtype.name for p in pictures],
        "pixels": _blobs([None if p is None else p.pixels_hwc for p in pictures]),
        "shape": [p and p.pixels_hwc.shape for p in pictures],
        "alpha": _blobs([None if p is None else p.alpha_hw for p in pictures]),
        "kernel": _blobs(kernels),
        "kernel_shape": [None if k is None else k.shape for k in kernels],
    }
    arrays = [
        column if isinstance(column, pa.Array) else pa.array(column, WORK_SCHEMA.field(name).type)
        for name, column in columns.items()
    ]
    return pa.table(arrays, schema=WORK_SCHEMA)


def table_to_work(table: pa.Table) -> list[Work]:
    """The inverse; pixels are read-only views of the table's memory."""
    small = table.drop_columns(["pixels", "alpha", "kernel"]).to_pylist()
    blobs = zip(*(_buffers(table.column(name)) for name in ("pixels", "alpha", "kernel")), strict=True)
    return [_work(row, *buffers) for row, buffers in zip(small, blobs, strict=True)]


def _blobs(arrays: Sequence[npt.NDArray[Any] | None]) -> pa.LargeBinaryArray:
    """Arrays as binary values in one buffer, each copied once."""
    ends = np.cumsum([0] + [0 if a is None else a.nbytes for a in arrays], dtype=np.int64)
    body = np.empty(ends[-1], np.uint8)
    for array, begin, end in zip(arrays, ends[:-1], ends[1:], strict=True):
        if array is not None:
            native = array.dtype.newbyteorder("=")  # decoders may hand over the file's byte order
            body[begin:end].view(native).reshape(array.shape)[...] = array
    valid = pa.array([a is not None for a in arrays], pa.bool_()).buffers()[1]
    buffers = [valid, pa.py_buffer(ends), pa.py_buffer(body)]
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), len(arrays), buffers)


def _buffers(column: pa.ChunkedArray) -> Iterator[pa.Buffer | None]:
    """Each binary value as a piece of its chunk's buffer; a `pa.Scalar` would be a copy."""
    for chunk in column.chunks:
        _, ends, body = chunk.buffers()
        if len(chunk) == 0:
            continue
        spans = np.frombuffer(ends, np.int64)[chunk.offset :].tolist()
        for valid, begin, end in zip(chunk.is_valid().to_pylist(), spans, spans[1:], strict=False):
            yield body.slice(begin, end - begin) if valid else None


def _work(row: dict[str, Any], pixels: pa.Buffer, alpha: pa.Buffer, kernel: pa.Buffer) -> Work:
    """One row; the buffers are None where the row has no such array."""
    item, outcome = Item(**row["item"]), Outcome(**row["outcome"])
    picture = degradation = None
    if (facts := row["picture"]) is not None:
        shape, dtype = tuple(row["shape"]), np.dtype(row["sample_type"])
        facts["dpi"] = None if facts["dpi"] is None else tuple(facts["dpi"])
        alpha_hw = None if alpha is None else np.frombuffer(alpha, dtype).reshape(shape[:2])
        picture = Picture(np.frombuffer(pixels, dtype).reshape(shape), alpha_hw=alpha_hw, **facts)
    if kernel is not None:
        values = np.frombuffer(kernel, np.float64).reshape(row["kernel_shape"])
        degradation = Degradation(values, item.scale, checked_sigma(item.sigma))
    return Work(item, outcome, picture, degradation)
