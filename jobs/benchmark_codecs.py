"""What decoding and encoding cost beside restoring, per format: one Markdown table.

    python jobs/benchmark_codecs.py [megapixels]

CPU seconds per megapixel of one thread, so that a busy machine shows the same. The picture is a
mosaic of photographs with sensor noise, since noise is what costs. `codec_costs` is for other jobs.
"""

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobs.program import OK, run
from pipeline.data import images
from pipeline.data.colour import of_depth
from pipeline.data.images import Options
from pipeline.records import Degradation, Picture

WAYS: dict[str, tuple[str, Options]] = {
    **{f"PNG, level {n}": ("png", Options(png_level=n)) for n in (0, 1, 3, 6)},
    **{f"TIFF, {name}": ("tiff", Options(tiff_compression=name)) for name in ("none", "zstd", "deflate", "lzw")},
    "JPEG, quality 95": ("jpeg", Options()),
    "WebP, quality 90": ("webp", Options()),
    "WebP, lossless": ("webp", Options(webp_quality=100)),
    "AVIF, quality 90": ("avif", Options()),
}
_Result = TypeVar("_Result")

DEPTHS: dict[int, tuple[type, tuple[str, ...]]] = {
    8: (np.uint8, ("png", "tiff", "jpeg", "webp", "avif")),
    16: (np.uint16, ("png", "tiff")),
    32: (np.float32, ("tiff",)),
}


@dataclass(frozen=True)
class CodecCost:
    """CPU seconds and megabytes per megapixel of one way to write a picture."""

    name: str
    bits: int
    encode: float
    decode: float
    megabytes: float


def codec_costs(picture: Picture) -> Iterator[CodecCost]:
    """The cost of each way to write `picture`, and to read that back."""
    megapixels = picture.pixels_hwc[:, :, 0].size / 1e6
    for bits, (dtype, formats) in DEPTHS.items():
        samples = replace(picture, pixels_hwc=of_depth(picture.pixels_hwc, dtype))
        for name, (format, options) in WAYS.items():
            if format not in formats:
                continue
            data, encode = _timed(partial(images.encode, samples, format, options))
            _, decode = _timed(partial(images.decode, data, max_pixels=2**40))
            yield CodecCost(name, bits, encode / megapixels, decode / megapixels, len(data) / 1e6 / megapixels)


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


def restore_cost(picture: Picture) -> float:
    """CPU seconds per HR megapixel of the packaged weights at x2."""
    from pipeline.model.checkpoint import load_usrnet
    from pipeline.model.restore import Restorer
    from pipeline.physics.kernels import parse_kernel

    lr = of_depth(picture.pixels_hwc, np.uint8)[:256, :384]
    degradation = Degradation(parse_kernel("gaussian(1.2)", 2), 2, 2.55)
    restorer = Restorer(load_usrnet())
    _, seconds = _timed(lambda: restorer.batch([lr], [degradation]))
    return seconds / (lr[:, :, 0].size * 4 / 1e6)


def _timed(action: Callable[[], _Result]) -> tuple[_Result, float]:
    begin = time.process_time()
    return action(), time.process_time() - begin


def main(argv: Sequence[str]) -> int:
    picture = photographs(float(argv[0]) if argv else 4.0)
    restore = restore_cost(picture)
    print(f"restoring: {restore:.2f} CPU seconds a megapixel of result\n")
    print("| format | bits | encode, ms/MP | decode, ms/MP | MB/MP | encode, share of restoring |")
    print("|---|---|---|---|---|---|")
    for cost in codec_costs(picture):
        figures = f"{1000 * cost.encode:.0f} | {1000 * cost.decode:.0f} | {cost.megabytes:.2f}"
        print(f"| {cost.name} | {cost.bits} | {figures} | {cost.encode / restore:.1%} |")
    return OK


if __name__ == "__main__":
    sys.exit(run(lambda: main(sys.argv[1:])))
