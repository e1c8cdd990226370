"""Kernels by specification: the analytic grammar, or a file by URI. And their digests.

    .npy            a 2-D array
    .npz            `k.npz#name` a 2-D array, `k.npz#name[3]` one of a stack
    .mat            as .npz; MATLAB cell arrays of kernels count as stacks
    .png            gray levels are weights
    .csv            rows of numbers

A kernel refers to the image after EXIF orientation; its origin is at n//2. Nothing is unpickled.
Knows no image, no item, no torch.
"""

import csv
import hashlib
import io
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline import uris
from pipeline.data import storage
from pipeline.errors import ItemError
from pipeline.physics.kernels import (
    canonical_spec,
    is_analytic,
    kernel_centroid,
    parse_kernel,
    phase_shift,
    shift_kernel,
)
from pipeline.records import normalized_kernel

Kernel = npt.NDArray[np.float64]

_MOST_BYTES = 2**26  # a file of 512×512 float64 kernels for a few dozen lenses
_SELECTOR = re.compile(r"(?P<name>[^\[\]]+)(?:\[(?P<index>\d+)\])?")


def load_kernel(
    spec: str, scale: int = 1, phase: str = "center", *, root: str | None = None, max_width: int = 512
) -> Kernel:
    """The kernel of a specification or URI, (kh, kw) float64, sum 1, for corner decimation by `scale`.

    root: what a relative URI is below. max_width: largest side in HR pixels.
    Raises `ItemError` bad-kernel or over-limit, `StorageError` when the file cannot be read.
    """
    if is_analytic(spec):
        return within(parse_kernel(spec, scale, phase), max_width, spec)
    uri, selector = _split(spec, root)
    array = _read_array(uri, selector)
    return from_array(array, scale, phase, max_width=max_width, name=spec)


def from_array(array: npt.ArrayLike, scale: int, phase: str, *, max_width: int, name: str = "the kernel") -> Kernel:
    """An array given as a kernel, validated, normalised and moved to corner phase."""
    try:
        kernel = within(normalized_kernel(array), max_width, name)
    except ItemError as error:
        raise ItemError(error.code, f"{name}: {error}" if error.code == "bad-kernel" else str(error)) from None
    return shift_kernel(kernel, phase_shift(scale, phase))


def within(kernel: Kernel, max_width: int, name: str) -> Kernel:
    """`kernel`, or `ItemError` over-limit when a side is longer than `max_width`."""
    if max(kernel.shape) > max_width:
        size = f"{kernel.shape[0]}×{kernel.shape[1]}"
        raise ItemError("over-limit", f"{name} is {size} pixels; `limits.kernel` allows {max_width} a side")
    return kernel


def kernel_digest(spec: str, root: str | None = None) -> str:
    """16 hex digits: of the canonical text, or of the file's bytes and the selector."""
    if is_analytic(spec):
        return _digest(canonical_spec(spec).encode())
    uri, selector = _split(spec, root)
    return _digest(storage.read_bytes(uri, max_bytes=_MOST_BYTES), selector.encode())


def values_digest(values: list[list[float]]) -> str:
    """16 hex digits of a kernel given as numbers."""
    return _digest(repr([[float(value) for value in row] for row in values]).encode())


def shifted_already(kernel: Kernel, scale: int) -> str | None:
    """A warning when an array given with phase `center` has its centroid where the shift would put it.

    Whoever degraded by decimating the upper-left pixel of a shifted kernel wants phase `corner`.
    """
    expected = -phase_shift(scale, "center")
    centroid = kernel_centroid(kernel)
    if scale == 1 or any(abs(c - expected) > 0.25 for c in centroid):
        return None
    place = f"({centroid[0]:.2f}, {centroid[1]:.2f})"
    return f"the kernel's centroid {place} seems to be shifted for scale {scale} already; use phase corner?"


def _split(spec: str, root: str | None) -> tuple[str, str]:
    uri, _, selector = spec.partition("#")
    return uris.absolute(uri, root), selector


def _read_array(uri: str, selector: str) -> Any:
    ending = uri.rpartition(".")[2].lower()
    if ending not in _READERS:
        raise ItemError("bad-kernel", f"{uri}: a kernel file ends in .{', .'.join(_READERS)}")
    data = storage.read_bytes(uri, max_bytes=_MOST_BYTES)
    try:
        content = _READERS[ending](data)
    except ItemError:
        raise
    except Exception as error:  # the readers' errors on damaged files have no common base
        raise ItemError("bad-kernel", f"{uri}: is no readable .{ending} file: {error}") from None
    return _selected(content, selector, uri)


def _selected(content: Any, selector: str, uri: str) -> Any:
    if not isinstance(content, Mapping):
        if selector:
            raise ItemError("bad-kernel", f"{uri} holds one array, so `#{selector}` has no meaning")
        return content
    match = _SELECTOR.fullmatch(selector)
    if match is None or match["name"] not in content:
        there = ", ".join(f"{name} {np.shape(array)}" for name, array in content.items()) or "nothing"
        raise ItemError("bad-kernel", f"{uri}: name a kernel with #name or #name[index]; it holds {there}")
    stack = content[match["name"]]
    if match["index"] is None:
        return _only(stack, selector, uri)
    kernels = _stack(stack)
    if int(match["index"]) >= len(kernels):
        raise ItemError("bad-kernel", f"{uri}#{selector}: there are {len(kernels)} kernels, counted from 0")
    return kernels[int(match["index"])]


def _only(stack: Any, selector: str, uri: str) -> Any:
    if stack.ndim == 2 and stack.dtype != object:
        return stack
    raise ItemError("bad-kernel", f"{uri}#{selector} is a stack of {len(_stack(stack))} kernels; add [index]")


def _stack(array: Any) -> Any:
    """Kernels one by one: the elements of a cell array, or slices along the first axis."""
    return list(array.flat) if array.dtype == object else array


def _read_mat(data: bytes) -> dict[str, Any]:
    from scipy.io import loadmat  # only .mat files need it

    file: Any = io.BytesIO(data)  # a path, say its stubs; its documentation says file objects too
    return {name: array for name, array in loadmat(file).items() if not name.startswith("__")}


def _read_png(data: bytes) -> Any:
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        if image.mode not in ("1", "L", "I;16", "I"):
            raise ItemError("bad-kernel", f"a kernel's .png must be gray, not {image.mode}")
        if image.width * image.height > _MOST_BYTES // 8:
            raise ItemError("over-limit", f"a kernel of {image.width}×{image.height} pixels")
        return np.asarray(image, np.float64)


def _read_csv(data: bytes) -> Any:
    rows = [row for row in csv.reader(io.StringIO(data.decode("utf-8-sig"))) if row]
    return [[float(cell) for cell in row] for row in rows]


def _load_numpy(data: bytes) -> Any:
    loaded = np.load(io.BytesIO(data), allow_pickle=False)
    return {name: loaded[name] for name in loaded.files} if hasattr(loaded, "files") else loaded


_READERS = {"npy": _load_numpy, "npz": _load_numpy, "png": _read_png, "mat": _read_mat, "csv": _read_csv}


def _digest(*parts: bytes) -> str:
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]
