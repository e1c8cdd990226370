"""The read stage: item -> LR image and kernel. Waits on the network, decodes on a CPU.

Knows no Ray and no torch.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from time import perf_counter

import numpy as np

from pipeline.data import images, kernels, storage
from pipeline.errors import ItemError
from pipeline.measure.noise import estimate_sigma
from pipeline.records import Degradation, Item, Outcome, Picture, Work, checked_sigma
from pipeline.stages.guard import guarded


@dataclass(frozen=True)
class ReadLimits:
    """lr_pixels: of the decoded image. bytes: of the encoded one. kernel: width of a kernel."""

    lr_pixels: int
    bytes: int
    kernel: int


def read(items: list[Item], *, limits: ReadLimits, clock: Callable[[], float] = perf_counter) -> list[Work]:
    """Fetch and decode each item, in order; what cannot be read is failed work."""
    return [guarded("read", lambda work: _read(work, limits, clock), started(item)) for item in items]


def started(item: Item) -> Work:
    """Work at its beginning: the outcome says who and what, and nothing has happened yet."""
    same = ("item_id", "work_id", "uri", "page", "scale", "sigma", "kernel", "kernel_digest", "phase")
    sources = ("scale_source", "sigma_source", "kernel_source", "phase_source")
    return Work(item, Outcome(**{name: getattr(item, name) for name in same + sources}))


def _read(work: Work, limits: ReadLimits, clock: Callable[[], float]) -> Work:
    begin = clock()
    item = work.item
    kernel = _kernel(item, limits.kernel)
    data, facts = storage.read_object(item.uri, max_bytes=limits.bytes)
    _same_object(item, len(data), facts.etag)
    picture = images.decode(data, page=item.page, max_pixels=limits.lr_pixels)
    _same_size(item, picture)
    if item.sigma is None:
        item = replace(item, sigma=estimate_sigma(picture.pixels_hwc))
    outcome = replace(
        work.outcome,
        input_bytes=len(data),
        input_etag=facts.etag,
        lr_height=picture.pixels_hwc.shape[0],
        lr_width=picture.pixels_hwc.shape[1],
        mode=picture.mode,
        bits=picture.bits,
        sigma=item.sigma,
        seconds_read=clock() - begin,
    )
    degradation = Degradation(kernel, item.scale, checked_sigma(item.sigma))
    return replace(work, item=item, outcome=outcome, picture=picture, degradation=degradation)


def _kernel(item: Item, widest: int) -> kernels.Kernel:
    if item.kernel_values is not None:
        return kernels.from_array(item.kernel_values, item.scale, item.phase, max_width=widest)
    return _load_kernel(item.kernel, item.scale, item.phase, widest)


@lru_cache(maxsize=256)  # an archive shares few kernels among many images
def _load_kernel(spec: str, scale: int, phase: str, widest: int) -> kernels.Kernel:
    kernel = kernels.load_kernel(spec, scale, phase, max_width=widest)
    kernel.flags.writeable = False
    return kernel


def _same_object(item: Item, size: int, etag: str | None) -> None:
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
