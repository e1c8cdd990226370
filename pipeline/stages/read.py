"""The read stage: item -> LR image and kernel. Waits on the network, decodes on a CPU.

Knows no Ray and no torch.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from time import perf_counter

import numpy as np

from pipeline.data import images, kernels, storage
from pipeline.data.encoders import refuse_unwritable
from pipeline.errors import ItemError
from pipeline.measure.noise import estimate_sigma
from pipeline.records import DEFERRED, Degradation, Item, Outcome, Picture, Work, checked_sigma
from pipeline.stages.guard import guarded
from pipeline.stages.write import Encoding

_WHOLE_BYTES = 2**31  # of an encoded image that is fetched into memory


@dataclass(frozen=True)
class ReadLimits:
    """lr_pixels: of the decoded image. bytes: of the encoded one. kernel: width of a kernel.

    whole: HR pixels of a result up to which images are read whole; larger ones are deferred.
    """

    lr_pixels: int
    bytes: int
    kernel: int
    whole: float = math.inf


def read(
    items: list[Item],
    *,
    limits: ReadLimits,
    encoding: Encoding | None = None,
    clock: Callable[[], float] = perf_counter,
) -> list[Work]:
    """Fetch and decode each item, in order; what cannot be read is failed work.

    encoding: how results will be written; what it cannot hold fails here, before it is restored.
    """
    return [guarded("read", lambda work: _read(work, limits, encoding, clock), started(item)) for item in items]


def started(item: Item) -> Work:
    """Work at its beginning: the outcome says who and what, and nothing has happened yet."""
    same = ("item_id", "work_id", "uri", "page", "scale", "sigma", "kernel", "kernel_digest", "phase")
    sources = ("scale_source", "sigma_source", "kernel_source", "phase_source")
    return Work(item, Outcome(**{name: getattr(item, name) for name in same + sources}))


def _read(work: Work, limits: ReadLimits, encoding: Encoding | None, clock: Callable[[], float]) -> Work:
    begin = clock()
    item = work.item
    kernel = load_kernel(item, limits.kernel)
    fetched = _fetched(item, limits)
    if fetched is None or _is_larger(fetched[0], item, limits.whole):
        return replace(work, outcome=replace(work.outcome, status=DEFERRED))
    data, facts = fetched
    same_object(item, len(data), facts.etag)
    picture = images.decode(data, page=item.page, max_pixels=limits.lr_pixels)
    _same_size(item, picture)
    height, width = picture.pixels_hwc.shape[:2]
    if encoding is not None:
        size = (width * item.scale, height * item.scale)
        refuse_unwritable(picture, encoding.format_of(item), encoding.options.depth, *size)
    if item.sigma is None:
        item = replace(item, sigma=estimate_sigma(picture.pixels_hwc))
    outcome = replace(
        work.outcome,
        input_bytes=len(data),
        input_etag=facts.etag,
        lr_height=height,
        lr_width=width,
        mode=picture.mode,
        bits=picture.bits,
        sigma=item.sigma,
        converted=picture.converted,
        seconds_read=clock() - begin,
    )
    degradation = Degradation(kernel, item.scale, checked_sigma(item.sigma))
    return replace(work, item=item, outcome=outcome, picture=picture, degradation=degradation)


def _fetched(item: Item, limits: ReadLimits) -> tuple[bytes, storage.ObjectFacts] | None:
    """The object and its facts; None where it is too large for memory, but not for windows."""
    may_defer = math.isfinite(limits.whole) and limits.bytes > _WHOLE_BYTES
    try:
        return storage.read_object(item.uri, max_bytes=_WHOLE_BYTES if may_defer else limits.bytes)
    except ItemError as error:
        if error.code == "over-limit" and may_defer:
            return None
        raise


def _is_larger(data: bytes, item: Item, hr_pixels: float) -> bool:
    if math.isinf(hr_pixels):
        return False
    width, height = images.dimensions(data, page=item.page)
    return width * height * item.scale**2 > hr_pixels


def load_kernel(item: Item, widest: int) -> kernels.Kernel:
    """The item's kernel, fetched once for all items that share it."""
    if item.kernel_values is not None:
        return kernels.from_array(item.kernel_values, item.scale, item.phase, max_width=widest)
    return _load_kernel(item.kernel, item.scale, item.phase, widest)


@lru_cache(maxsize=256)  # an archive shares few kernels among many images
def _load_kernel(spec: str, scale: int, phase: str, widest: int) -> kernels.Kernel:
    kernel = kernels.load_kernel(spec, scale, phase, max_width=widest)
    kernel.flags.writeable = False
    return kernel


def same_object(item: Item, size: int, etag: str | None) -> None:
    """Raises `ItemError` when what is stored is not what the catalog was made from."""
    if item.size is not None and item.size != size:
        raise ItemError("input-changed", f"{item.uri} has {size} bytes, the catalog says {item.size}")
    if item.etag and etag and item.etag.strip('"') != etag:
        raise ItemError("input-changed", f"{item.uri} has the etag {etag}, the catalog says {item.etag}")


def _same_size(item: Item, picture: Picture) -> None:
    planned = (item.height, item.width)
    found = tuple(np.shape(picture.pixels_hwc)[:2])
    if None not in planned and planned != found:
        raise ItemError(
            "input-changed",
            f"{item.uri} is {found[1]}×{found[0]} pixels, the catalog says {item.width}×{item.height}",
        )
