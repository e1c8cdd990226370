"""Kernels from a specification or a file, ready for corner decimation; and their digests.

    gaussian(1.6), ...        the analytic grammar of `pipeline.physics.kernels`
    psf.csv, psf.png          a table of numbers; a gray image of any depth, its values as weights
    psf.npy, set.npy#[3]      a 2-D array; one of a stack (n, h, w)
    set.npz#name[3]           an array of the file by its name; the name may be left out if there is one
    kernels.mat#kernels[3]    likewise: a matrix, a stack (h, w, n), or a cell array of matrices

Indices count from 0. Nothing here ever unpickles. Knows URIs and file formats, no catalog.
"""

import hashlib
import io
import re
import zipfile
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL.PngImagePlugin import PngImageFile

from pipeline import uris
from pipeline.data import png_chunks, storage
from pipeline.data.pillow import DAMAGE, own_rules
from pipeline.errors import ItemError, StorageError
from pipeline.physics.kernels import (
    GRAMMAR,
    canonical_spec,
    is_analytic,
    kernel_centroid,
    parse_kernel,
    phase_shift,
    shift_kernel,
)
from pipeline.records import checked_scale, normalized_kernel

Kernel = npt.NDArray[np.float64]
Arrays = Mapping[str, npt.NDArray[Any]]

_LARGEST_FILE = 2**26  # bytes, packed or unpacked: 2000 kernels of 64 x 64, and no bomb
_SHIFTED_WITHIN = 0.25  # HR pixels; half of the smallest shift there is


class _FileSpec(NamedTuple):
    """A specification taken apart: `uri#name[index]`; selector is the part from `#` on."""

    uri: str
    ending: str
    selector: str
    name: str
    number: int | None


def fetch(uri: str) -> bytes:
    """A kernel file's bytes. One that is not there is a bad kernel: the image may be all right."""
    try:
        return storage.read_bytes(uri, max_bytes=_LARGEST_FILE)
    except StorageError as error:
        if error.code != "input-missing":
            raise
        raise ItemError("bad-kernel", str(error)) from None


def load_kernel(
    spec: str,
    scale: int = 1,
    phase: str = "center",
    *,
    root: str | None = None,
    max_width: int = 512,
    fetch: Callable[[str], bytes] = fetch,
) -> Kernel:
    """The kernel of an item, whatever its specification: (kh, kw), sum 1, for corner decimation.

    scale: integer >= 1. phase: `center` moves it by (scale-1)/2 up and left. root: what a relative
    URI is below. max_width: of the kernel as given, in HR pixels. fetch: URI -> bytes.
    Raises `ItemError` bad-kernel, bad-scale, bad-metadata, over-limit, and `StorageError`.
    """
    if is_analytic(spec):
        analytic = parse_kernel(spec, scale, phase)
        return _named(spec, lambda: _narrow(analytic, max_width))
    file = _taken_apart(spec)
    uri = uris.absolute(file.uri, root)
    data = fetch(uri)
    kernel = _named(uris.without_query(uri) + file.selector, lambda: _kernel_in(data, file, max_width))
    return shift_kernel(kernel, phase_shift(checked_scale(scale), phase))


def load_stack(spec: str, *, root: str | None = None, max_width: int = 512) -> list[Kernel]:
    """All kernels of a file or of one array in it, `k.npz#name`, as they are: each (kh, kw), sum 1.

    Raises `ItemError` bad-kernel, over-limit, and `StorageError`.
    """
    file = _taken_apart(spec)
    if file.number is not None:
        return [load_kernel(spec, phase="corner", root=root, max_width=max_width)]
    data = storage.read_bytes(uris.absolute(file.uri, root), max_bytes=_LARGEST_FILE)
    try:
        arrays = _READERS[file.ending](data)
        count = len(arrays[file.name]) if file.name in arrays and arrays[file.name].ndim != 2 else None
    except _DAMAGE as error:
        raise ItemError("bad-kernel", f"{spec}: it cannot be read as .{file.ending}: {error}") from None
    picks = [file] if count is None else [file._replace(number=number) for number in range(count)]
    return [_named(spec, partial(_kernel_in, data, pick, max_width)) for pick in picks]


def from_array(array: npt.ArrayLike, scale: int, phase: str, *, max_width: int, name: str = "the kernel") -> Kernel:
    """The same for a kernel given by its numbers, as in a catalog's `kernel_values`."""
    kernel = _named(name, lambda: _narrow(normalized_kernel(array), max_width))
    return shift_kernel(kernel, phase_shift(checked_scale(scale), phase))


def kernel_digest(spec: str, root: str | None = None, fetch: Callable[[str], bytes] = fetch) -> str:
    """16 hex digits that change with the kernel: of the canonical text, or of the file and its selector.

    Never of computed numbers, which may differ from machine to machine.
    """
    if is_analytic(spec):
        return _digest(canonical_spec(spec).encode())
    file = _taken_apart(spec)
    data = fetch(uris.absolute(file.uri, root))
    return _digest(data, file.selector.encode())


def values_digest(values: list[list[float]]) -> str:
    """16 hex digits of a kernel given by its numbers; 1 and 1.0 are the same number."""
    normalized_kernel(values)  # or `ItemError` bad-kernel
    return _digest(repr([[float(value) for value in row] for row in values]).encode())


def warn_shifted(kernel: Kernel, scale: int) -> str | None:
    """A warning where `kernel`, as it is in its file, seems to be made for corner decimation already.

    Then its centroid lies at -(scale-1)/2 on both axes, and phase `center` would move it again. To
    have a file's kernel as it is, load it with phase `corner`.
    """
    expected = -(scale - 1) / 2
    if scale == 1 or any(abs(c - expected) > _SHIFTED_WITHIN for c in kernel_centroid(kernel)):
        return None
    where = f"the kernel's centroid is at {expected:g} on both axes already, as for scale {scale} and phase corner"
    return f"{where}; if it was made for the upper-left pixel of each block, set phase to corner"


def _taken_apart(spec: str) -> _FileSpec:
    match = _FILE_SPEC.fullmatch(spec)
    if match is None:
        files = f"the URI of a file ending in .{', .'.join(_READERS)}, and #name[index] where it holds several"
        raise ItemError("bad-kernel", f"kernel {spec!r} is neither one of: {GRAMMAR}; nor {files}")
    uri, ending, selector, name, index = match.groups()
    return _FileSpec(uri, ending.lower(), selector or "", name or "", None if index is None else int(index))


def _kernel_in(data: bytes, file: _FileSpec, max_width: int) -> Kernel:
    try:
        array = _chosen(_READERS[file.ending](data), file.name, file.number)
    except _DAMAGE as error:
        text = str(error) or type(error).__name__
        raise ItemError("bad-kernel", f"it cannot be read as .{file.ending}: {text}") from None
    return normalized_kernel(_narrow(array, max_width))


def _named(where: str, action: Callable[[], Kernel]) -> Kernel:
    try:
        return action()
    except ItemError as error:
        raise ItemError(error.code, f"{where}: {error}") from None


def _narrow(kernel: npt.NDArray[Any], max_width: int) -> npt.NDArray[Any]:
    if max(kernel.shape, default=0) > max_width:
        size = " x ".join(str(n) for n in kernel.shape)
        raise ItemError("over-limit", f"it spans {size} HR pixels; `limits.kernel` allows {max_width}")
    return kernel


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _chosen(arrays: Arrays, name: str, index: int | None) -> npt.NDArray[Any]:
    """The 2-D array that `#name[index]` means; `ItemError` listing what there is if it means none."""
    if not name and len(arrays) == 1:
        (name,) = arrays
    if name not in arrays:
        wanted = f"has no array {name!r}" if name else "holds several arrays"
        raise ItemError("bad-kernel", f"it {wanted}; choose one with #name: {_contents(arrays)}")
    array = arrays[name]
    stack = array.ndim == 3 or array.dtype == object
    if stack and (index is None or index >= len(array)):
        wanted = "holds several kernels" if index is None else f"has no kernel {index}"
        message = f"it {wanted}; choose one with #{name}[0] to #{name}[{len(array) - 1}]: {_contents(arrays)}"
        raise ItemError("bad-kernel", message)
    if not stack and index is not None:
        raise ItemError("bad-kernel", f"{name or 'it'} is one array, so [{index}] picks nothing: {_contents(arrays)}")
    kernel = np.asarray(array[index]) if stack else array
    if kernel.dtype.kind not in "biuf":
        raise ItemError("bad-kernel", f"{name or 'it'} holds {kernel.dtype}, not real numbers")
    return kernel


def _contents(arrays: Arrays) -> str:
    def described(name: str) -> str:
        try:
            array = arrays[name]
        except ValueError:  # an array of an .npz that only pickle could read
            return f"{name} (no numbers)"
        return f"{name} {f'{len(array)} cells' if array.dtype == object else array.shape}".strip()

    return ", ".join(described(name) for name in arrays) or "(nothing)"


def _npy(data: bytes) -> Arrays:
    return {"": np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)}


def _npz(data: bytes) -> Arrays:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        if sum(member.file_size for member in archive.infolist()) > _LARGEST_FILE:
            raise ItemError("over-limit", f"it unpacks to more than {_LARGEST_FILE} bytes; save fewer kernels in it")
    arrays: Arrays = np.load(io.BytesIO(data), allow_pickle=False)
    return arrays


def _csv(data: bytes) -> Arrays:
    lines = data.decode("utf-8-sig").splitlines()
    rows = [[float(cell) for cell in line.split(",")] for line in lines if line.strip()]
    if len({len(row) for row in rows}) > 1:
        raise ItemError("bad-kernel", "its rows have different numbers of values")
    return {"": np.array(rows)}


def _mat(data: bytes) -> Arrays:
    file: Any = io.BytesIO(data)  # SciPy's stubs know only paths
    try:
        from scipy.io import loadmat  # here, so that whoever has no .mat files needs no SciPy
    except ImportError:
        raise ItemError("bad-kernel", "reading .mat needs SciPy: pip install scipy") from None
    try:
        found = loadmat(file)
    except NotImplementedError:  # MATLAB 7.3 files are HDF5
        raise ItemError("bad-kernel", "it is of MATLAB 7.3; save it with the option -v7") from None
    return {name: _stacked(value) for name, value in found.items() if isinstance(value, np.ndarray)}


def _stacked(value: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """MATLAB counts along the last axis, and a list of cells is a matrix of one row or column."""
    if value.dtype == object:
        return value.ravel()
    return np.moveaxis(value, -1, 0) if value.ndim == 3 else value


def _png(data: bytes) -> Arrays:
    with own_rules():
        image = PngImageFile(io.BytesIO(data))
        if image.width * image.height > _LARGEST_FILE // 8:
            raise ItemError("over-limit", f"it has {image.width} x {image.height} pixels, far more than any kernel")
        if image.mode not in ("1", "L", "I", "I;16"):
            raise ItemError("bad-kernel", f"it is of mode {image.mode}; save it as a gray image without alpha")
        if damage := png_chunks.damage(data):
            raise ItemError("bad-kernel", f"it is damaged: {damage}")
        return {"": np.asarray(image, np.float64)}


_READERS: dict[str, Callable[[bytes], Arrays]] = {"npy": _npy, "npz": _npz, "png": _png, "mat": _mat, "csv": _csv}
_FILE_SPEC = re.compile(rf"(.+\.({'|'.join(_READERS)}))(#([^\[\]]*)(?:\[(\d+)\])?)?", re.IGNORECASE | re.DOTALL)

# What NumPy and SciPy raise on damaged files, beside the codecs.
_DAMAGE = (*DAMAGE, MemoryError, zipfile.BadZipFile)
