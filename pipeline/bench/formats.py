"""What image files cost beside the network: decoding and encoding, format by format.

    codec_costs   every way to write one picture, and to read that back
    stage_costs   an archive of one format through the stages, as the manifest's seconds_* have it

CPU seconds, so that a busy machine shows the same; noise is in all pictures, since noise is what costs.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
from PIL import Image

from pipeline import uris
from pipeline.bench.machine import timed
from pipeline.data import images, storage
from pipeline.data.colour import of_depth
from pipeline.data.images import EXTENSIONS, Options
from pipeline.errors import ItemError
from pipeline.model.restore import Restorer
from pipeline.physics.kernels import parse_kernel
from pipeline.plan import SAME
from pipeline.records import DONE, Degradation, Item, Outcome, Picture, Pixels
from pipeline.stages.read import ReadLimits, read
from pipeline.stages.restore import restore
from pipeline.stages.write import Encoding, write

WAYS: dict[str, tuple[str, Options]] = {
    **{f"PNG, level {n}": ("png", Options(png_level=n)) for n in (0, 1, 3, 6)},
    **{f"TIFF, {name}": ("tiff", Options(tiff_compression=name)) for name in ("none", "zstd", "deflate", "lzw")},
    "JPEG, quality 95": ("jpeg", Options()),
    "WebP, quality 90": ("webp", Options()),
    "WebP, lossless": ("webp", Options(webp_quality=100)),
    "AVIF, quality 90": ("avif", Options()),
}
DEPTHS: dict[int, tuple[type, tuple[str, ...]]] = {
    8: (np.uint8, ("png", "tiff", "jpeg", "webp", "avif")),
    16: (np.uint16, ("png", "tiff")),
    32: (np.float32, ("tiff",)),
}
ARCHIVES = (
    ("png", 8), ("png", 16), ("tiff", 8), ("tiff", 16), ("jpeg", 8), ("webp", 8), ("avif", 8), ("jp2", 8),
)  # fmt: skip
_LIMITS = ReadLimits(lr_pixels=2**28, bytes=2**31, kernel=64)


@dataclass(frozen=True)
class CodecCost:
    """CPU seconds and megabytes per megapixel of one way to write a picture."""

    name: str
    bits: int
    encode: float
    decode: float
    megabytes: float


@dataclass(frozen=True)
class StageCost:
    """Seconds per HR megapixel of an archive of one format. bits: of a sample. written: the results' format.

    read: fetch and decode the LR image. write: encode and put the result.
    """

    format: str
    bits: int
    written: str
    read: float
    restore: float
    write: float


def codec_costs(picture: Picture) -> Iterator[CodecCost]:
    """The cost of each way to write `picture`, and to read that back."""
    megapixels = picture.pixels_hwc[:, :, 0].size / 1e6
    for bits, (dtype, formats) in DEPTHS.items():
        samples = replace(picture, pixels_hwc=of_depth(picture.pixels_hwc, dtype))
        for name, (format, options) in WAYS.items():
            if format not in formats:
                continue
            encode, data = timed(partial(images.encode, samples, format, options), process_time)
            decode, _ = timed(partial(images.decode, data, max_pixels=2**40), process_time)
            yield CodecCost(name, bits, encode / megapixels, decode / megapixels, len(data) / 1e6 / megapixels)


def stage_costs(
    root: str,
    restorer: Restorer,
    pictures: Sequence[Pixels],
    scale: int = 2,
    clock: Callable[[], float] = process_time,
) -> Iterator[StageCost]:
    """An archive below `root` of each format, read, restored and written by the stages themselves.

    pictures: LR, (h, w, 3) uint16. Restoring on a GPU is timed by the wall's clock.
    """
    wall = restorer.device.type == "cuda"
    for format, bits in ARCHIVES:
        folder = uris.join(root, f"{format}-{bits}")
        items = [_stored(folder, n, pixels, format, bits, scale) for n, pixels in enumerate(pictures)]
        works = read(items, limits=_LIMITS, encoding=Encoding(SAME), clock=clock)
        works = restore(
            works,
            restorer=restorer,
            model_id="benchmark",
            boundary="smooth",
            clock=perf_counter if wall else clock,
        )
        works = write(works, output=folder, encoding=Encoding(SAME), clock=clock)
        yield _cost(format, bits, [work.outcome for work in works])


def photographs(megapixels: float) -> Picture:
    """A mosaic of 16-bit samples, noise of 1% of white included."""
    import skimage

    rng, folder = np.random.default_rng(0), Path(skimage.__file__).parent / "data"
    names = ("astronaut.png", "coffee.png", "chelsea.png")
    parts = [images.decode((folder / name).read_bytes(), max_pixels=2**24).pixels_hwc for name in names]
    row = np.concatenate([part[:300, :450] for part in parts], axis=1)
    rows = max(1, round(megapixels * 1e6 / row[:, :, 0].size))
    mosaic = np.concatenate([row] * rows).astype(np.float64) * 257 + rng.normal(0, 655, (rows * 300, row.shape[1], 3))
    return Picture(np.rint(mosaic.clip(0, 65535)).astype(np.uint16), mode="RGB", format="tiff", bits=16)


def restore_cost(restorer: Restorer, picture: Picture) -> float:
    """CPU seconds per HR megapixel of restoring at x2."""
    lr = of_depth(picture.pixels_hwc, np.uint8)[:256, :384]
    degradation = Degradation(parse_kernel("gaussian(1.2)", 2), 2, 2.55)
    seconds, _ = timed(lambda: restorer.batch([lr], [degradation]), process_time)
    return seconds / (lr[:, :, 0].size * 4 / 1e6)


def _stored(folder: str, number: int, pixels: Pixels, format: str, bits: int, scale: int) -> Item:
    """The picture as a file below `folder`, and the item that names it."""
    samples = of_depth(pixels, DEPTHS[bits][0])
    name = f"{number}{EXTENSIONS.get(format, '.jp2')}"
    data = _jpeg_2000(samples) if format == "jp2" else images.encode(Picture(samples, "RGB", format, bits), format)
    storage.write_bytes(uris.join(folder, name), data)
    return Item(name, uris.join(folder, name), name, scale, 2.55, "gaussian(1.2)", "center")


def _jpeg_2000(samples: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(samples).save(file, "JPEG2000")
    return file.getvalue()


def _cost(format: str, bits: int, outcomes: Sequence[Outcome]) -> StageCost:
    for outcome in outcomes:
        if outcome.status != DONE:
            raise ItemError(str(outcome.error_code), f"{outcome.uri}: {outcome.error}")
    megapixels = sum((o.sr_width or 0) * (o.sr_height or 0) for o in outcomes) / 1e6
    seconds = (
        sum(getattr(outcome, f"seconds_{stage}") for outcome in outcomes) / megapixels
        for stage in ("read", "restore", "write")
    )
    return StageCost(format, bits, str(outcomes[0].sr_uri).rsplit(".", 1)[-1], *seconds)
