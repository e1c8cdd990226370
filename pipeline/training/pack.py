"""A training in one file that travels: crops, recipe, weights to start from; read with torch and numpy alone.

    recipe.json               the recipe, as `recipe.as_mapping` gives it
    start.safetensors         weights to start from
    perceptual.safetensors    of the GAN phase, where it has some
    kernels/<scale>/<n>.npy   the archive's own kernels
    train/<n>.xz              crops to train on, validation/<n>.xz crops held out

Crops are lossless: green is taken from red and blue, each sample's difference from what its
neighbours above and to the left foretell is kept, and xz packs that: about 1.1 MB a megapixel,
an eighth more than lossless WebP, with nothing but Python's standard library.
"""

import io
import json
import lzma
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import Tensor

from pipeline.errors import ConfigError
from pipeline.model.checkpoint import load_tensors, load_usrnet, safetensors_bytes
from pipeline.model.usrnet import USRNet
from pipeline.physics.kernels import Kernel
from pipeline.training.pairs import FLAT, Photograph
from pipeline.training.recipe import Recipe, as_mapping, from_mapping


@dataclass(frozen=True)
class Pack:
    """What a pack holds. photographs, validation: crops. kernels: by scale. perceptual: or None."""

    recipe: Recipe
    start: USRNet
    perceptual: dict[str, Tensor] | None
    kernels: dict[int, list[Kernel]]
    photographs: list[Photograph]
    validation: list[Photograph]


def write_pack(path: Path, pack: Pack, *, side: int, most_bytes: int) -> tuple[int, int]:
    """Cut `pack`'s photographs into crops and write as many as fit; returns how many of each kind.

    side: of a crop, in pixels; smaller photographs are taken whole. most_bytes: of the file; a
    twentieth goes to validation. Crops are drawn in random order, flat ones left out.
    Raises `ConfigError` when not even one crop fits.
    """
    part = path.with_suffix(".part")
    with zipfile.ZipFile(part, "w") as file:
        for name, data in _fixed_members(pack):
            file.writestr(name, data)
        room = most_bytes - sum(len(info.filename) * 2 + info.file_size + 200 for info in file.infolist())
        held = _write_crops(file, "validation", pack.validation, side, room // 20)
        trained = _write_crops(file, "train", pack.photographs, side, room - room // 20)
    if not trained:
        part.unlink()
        raise ConfigError(f"not one crop fits into {most_bytes} bytes beside weights and kernels; allow more")
    part.replace(path)
    return trained, held


def read_pack(path: Path) -> Pack:
    """The pack at `path`. Raises `ConfigError` when there is none, or it is damaged."""
    try:
        with zipfile.ZipFile(path) as file:
            return Pack(
                recipe=from_mapping(json.loads(file.read("recipe.json"))),
                start=load_usrnet(io.BytesIO(file.read("start.safetensors")), name="start.safetensors"),
                perceptual=_perceptual(file),
                kernels=_kernels(file),
                photographs=[unpacked(file.read(name)) for name in _below(file, "train")],
                validation=[unpacked(file.read(name)) for name in _below(file, "validation")],
            )
    except (OSError, zipfile.BadZipFile, lzma.LZMAError, KeyError, ValueError, TypeError) as error:
        raise ConfigError(f"{path} is no pack of jobs/pack_training.py: {error}") from None


def packed(image: Photograph) -> bytes:
    """A few bytes that `unpacked` turns into the very same (h, w, 3) uint8."""
    residual = image.transpose(2, 0, 1).copy()
    residual[0] -= image[..., 1]
    residual[2] -= image[..., 1]
    for axis in (1, 2):
        residual = np.diff(residual, axis=axis, prepend=np.uint8(0))
    file = io.BytesIO()
    np.save(file, residual)
    return lzma.compress(file.getvalue(), preset=6)


def unpacked(data: bytes) -> Photograph:
    residual: npt.NDArray[np.uint8] = np.load(io.BytesIO(lzma.decompress(data)), allow_pickle=False)
    for axis in (2, 1):
        residual = np.cumsum(residual, axis=axis, dtype=np.uint8)
    residual[0] += residual[1]
    residual[2] += residual[1]
    return np.ascontiguousarray(residual.transpose(1, 2, 0))


def _fixed_members(pack: Pack) -> Iterator[tuple[str, bytes]]:
    yield "recipe.json", json.dumps(as_mapping(pack.recipe), indent=1).encode()
    yield "start.safetensors", safetensors_bytes(pack.start.state_dict(), {})
    if pack.perceptual is not None:
        yield "perceptual.safetensors", safetensors_bytes(pack.perceptual, {})
    for scale, kernels in pack.kernels.items():
        for number, kernel in enumerate(kernels):
            file = io.BytesIO()
            np.save(file, kernel)
            yield f"kernels/{scale}/{number:04}.npy", file.getvalue()


def _write_crops(file: zipfile.ZipFile, folder: str, photographs: Sequence[Photograph], side: int, room: int) -> int:
    written = 0
    for crop in _crops(photographs, side):
        data = packed(crop)
        room -= len(data) + 200  # names and the directory's entry
        if room < 0:
            break
        file.writestr(f"{folder}/{written:06}.xz", data)
        written += 1
    return written


def _crops(photographs: Sequence[Photograph], side: int) -> Iterable[Photograph]:
    places = [
        (number, top, left)
        for number, photograph in enumerate(photographs)
        for top in _starts(photograph.shape[0], side)
        for left in _starts(photograph.shape[1], side)
    ]
    for place in np.random.default_rng(0).permutation(len(places)):
        number, top, left = places[place]
        crop = photographs[number][top : top + side, left : left + side]
        if crop.mean(axis=2).std() > FLAT:
            yield crop


def _starts(length: int, side: int) -> range:
    return range(0, max(1, length - side + 1), side)


def _below(file: zipfile.ZipFile, folder: str) -> list[str]:
    return sorted(name for name in file.namelist() if name.startswith(f"{folder}/"))


def _kernels(file: zipfile.ZipFile) -> dict[int, list[Kernel]]:
    kernels: dict[int, list[Kernel]] = {}
    for name in _below(file, "kernels"):
        kernel = np.load(io.BytesIO(file.read(name)), allow_pickle=False)
        kernels.setdefault(int(name.split("/")[1]), []).append(kernel)
    return kernels


def _perceptual(file: zipfile.ZipFile) -> dict[str, Tensor] | None:
    name = "perceptual.safetensors"
    return load_tensors(io.BytesIO(file.read(name)), name=name) if name in file.namelist() else None
