"""Weights in and out: the authors' .pth state dicts unchanged, and .safetensors.

The architecture is read off the tensor shapes. Pickled code is never run. Needs only torch; a
remote URI also needs fsspec.
"""

import hashlib
import io
import json
import math
import pickle
import re
import struct
from collections.abc import Callable, Mapping
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from pipeline.errors import WeightsError
from pipeline.model.usrnet import Architecture, USRNet

Source = str | PathLike[str] | BinaryIO | None
StateDict = Mapping[str, Tensor]

DEFAULT_WEIGHTS = "unfold_usrnet_tiny.safetensors"
# What torch.load, json and reshape were seen to raise on damaged files; found by tests that damage them.
_DAMAGE = (
    *(RuntimeError, ValueError, TypeError, AttributeError, AssertionError),
    *(LookupError, ArithmeticError, EOFError, struct.error),
)
_LONGEST_HEADER = 100_000_000  # the format's own limit; text misread as a length is far beyond
_DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}


def load_usrnet(source: Source = None, *, name: str | None = None) -> USRNet:
    """A USRNet with the weights at `source`, in eval mode, fp32, on the CPU.

    source: a path, URI or binary file of a .pth state dict (any of the authors' four) or of
    .safetensors; None loads the weights packaged with Unfold. name: what errors call the source.
    Raises `WeightsError` when it cannot be read, holds pickled code, or does not fit.
    """
    name, state = _named_tensors(source, name)
    architecture = _architecture(name, state)
    try:
        net = USRNet(architecture)
        net.load_state_dict(state)
    except (RuntimeError, ValueError) as error:
        raise WeightsError(f"{name}: the tensors do not fit a USRNet: {error}") from None
    return net.eval().requires_grad_(False)


def load_tensors(source: Source, *, name: str | None = None) -> dict[str, Tensor]:
    """The state dict at `source`, of whatever network; raises `WeightsError` as `load_usrnet` does."""
    return _named_tensors(source, name)[1]


def save_safetensors(state: StateDict, path: PathLike[str] | str, metadata: Mapping[str, str]) -> None:
    """Write `state` (name → real tensor) and string `metadata` as one .safetensors file."""
    Path(path).write_bytes(safetensors_bytes(state, metadata))


def safetensors_bytes(state: StateDict, metadata: Mapping[str, str]) -> bytes:
    """The .safetensors file of `state` (name → real tensor) and string `metadata`."""
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    pieces, end = [], 0
    names = {dtype: name for name, dtype in _DTYPES.items()}
    for key, tensor in state.items():
        pieces.append(_bytes(tensor))
        span = [end, end := end + len(pieces[-1])]
        header[key] = {"dtype": names[tensor.dtype], "shape": list(tensor.shape), "data_offsets": span}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return b"".join((len(text).to_bytes(8, "little"), text, *pieces))


def model_id(net: USRNet) -> str:
    """Digest of the weights: the same for a .pth and a .safetensors of equal tensors."""
    digest = hashlib.sha256()
    for key, tensor in sorted(net.state_dict().items()):
        digest.update(f"{key}{tuple(tensor.shape)}".encode())
        digest.update(_bytes(tensor.float()))
    return digest.hexdigest()[:16]


def packaged_weights() -> bytes:
    """The .safetensors file packaged with Unfold."""
    return (resources.files("pipeline.model") / "weights" / DEFAULT_WEIGHTS).read_bytes()


def _named_tensors(source: Source, name: str | None) -> tuple[str, dict[str, Tensor]]:
    called, data = _read(source)
    return name or called, _parse(name or called, data)


def _read(source: Source) -> tuple[str, bytes]:
    try:
        if source is None:
            return DEFAULT_WEIGHTS, packaged_weights()
        if isinstance(source, (str, PathLike)):
            return str(source), _read_uri(str(source))
        return str(getattr(source, "name", "weights")), source.read()
    except (OSError, ImportError, ValueError) as error:
        name = DEFAULT_WEIGHTS if source is None else source
        raise WeightsError(f"weights {name!s} cannot be read: {error}; check model.weights") from None


def _read_uri(uri: str) -> bytes:
    if "://" not in uri:
        return Path(uri).read_bytes()
    import fsspec  # only remote weights need it

    try:
        with fsspec.open(uri, "rb") as file:
            data: bytes = file.read()
    except Exception as error:  # each storage client has errors of its own
        raise OSError(type(error).__name__) from None
    return data


def _parse(name: str, data: bytes) -> dict[str, Tensor]:
    parse, kind = _format(name, data)
    try:
        state = parse(data)
    except pickle.UnpicklingError:
        raise WeightsError(
            f"{name}: cut short, or holds pickled code or objects, which are never run; save it as a plain state dict"
        ) from None
    except _DAMAGE as error:
        raise WeightsError(f"{name}: damaged or cut short, though it begins like {kind} ({error})") from None
    if not isinstance(state, Mapping) or not all(
        isinstance(key, str) and isinstance(tensor, Tensor) for key, tensor in state.items()
    ):
        raise WeightsError(f"{name}: must be a plain state dict (tensor name → tensor)")
    return dict(state)


def _format(name: str, data: bytes) -> tuple[Callable[[bytes], object], str]:
    """The parser for `data` and what it reads, told by the first bytes: names may lie."""
    if data[8:9] == b"{" and int.from_bytes(data[:8], "little") <= _LONGEST_HEADER:
        return _parse_safetensors, "a .safetensors file"
    if data.startswith((b"PK\x03\x04", b"\x80")):
        return _parse_pth, "a .pth file"
    raise WeightsError(f"{name}: neither a .pth state dict nor .safetensors; it begins with {data[:24]!r}")


def _parse_pth(data: bytes) -> object:
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _parse_safetensors(data: bytes) -> dict[str, Tensor]:
    start = 8 + int.from_bytes(data[:8], "little")
    if start > len(data):
        raise ValueError("the header is incomplete")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    state = {}
    for key, entry in header.items():
        begin, end = entry["data_offsets"]
        dtype, shape = _DTYPES[entry["dtype"]], entry["shape"]
        size = math.prod(shape) * dtype.itemsize
        if not 0 <= begin <= end <= len(data) - start or end - begin != size:
            raise ValueError(f"tensor {key!r} does not fit into the file")
        piece = bytearray(data[start + begin : start + end])
        state[key] = torch.frombuffer(piece, dtype=dtype).reshape(shape)
    return state


def _architecture(name: str, state: StateDict) -> Architecture:
    def rows(key: str) -> int:
        if key not in state or state[key].ndim == 0 or len(state[key]) == 0:
            raise WeightsError(f"{name}: not a USRNet: it has no tensor {key!r} of the right shape")
        return len(state[key])

    blocks = len({m[1] for key in state if (m := re.fullmatch(r"p\.m_body\.(\d+)\.res\.0\.weight", key))})
    widths = (
        rows("p.m_head.weight"),
        rows(f"p.m_down1.{blocks}.weight"),
        rows(f"p.m_down2.{blocks}.weight"),
        rows(f"p.m_down3.{blocks}.weight"),
    )
    iterations = max(1, rows("h.mlp.4.weight") // 2)
    return Architecture(iterations, rows("h.mlp.0.weight"), widths, blocks)


def _bytes(tensor: Tensor) -> bytes:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return bytes(flat.view(torch.uint8).numpy().tobytes())
