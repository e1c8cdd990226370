"""The stage of images without limit: from object storage to object storage by way of local scratch.

    fetch     the object to scratch, in pieces
    restore   window by window, in bounded memory
    write     each row of tiles as it is done; the metadata last
    put       the finished file, in parts; the object appears when it is whole

`tried` does the first three with the middle of an image only, to measure them.

The one stage that both restores and does I/O: its images fit into no memory. Knows no Ray.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from pipeline import uris
from pipeline.data import exif, metadata, storage
from pipeline.data.tiff import TiffWriter
from pipeline.data.windows import TiledRows, WindowSource, middle, open_windows, scratch_bytes
from pipeline.errors import ItemError
from pipeline.measure.noise import estimate_sigma
from pipeline.plan import LARGE_ENDING, output_key
from pipeline.records import DONE, Degradation, Item, Picture, Work
from pipeline.stages.account import accounted
from pipeline.stages.guard import guarded
from pipeline.stages.read import ReadLimits, load_kernel, same_object, started
from pipeline.stages.write import Encoding

if TYPE_CHECKING:
    from pipeline.model.restore import Account

_SAMPLE = 1024  # LR pixels of the side from which an unknown sigma is estimated
_PIECE = 2**24  # bytes hashed at once
_NOTE = {"software": "unfold", "model": "none"}  # of a result that is not kept


class Restorer(Protocol):
    """What is asked of `pipeline.model.restore.Restorer`."""

    def windows(
        self, source: Any, degradation: Degradation, tell: Callable[["Account"], None]
    ) -> Iterator[tuple[int, int, Any]]: ...


@dataclass(frozen=True)
class Place:
    """Where results go. scratch: a local folder with room, the system's own when None."""

    output: str
    scratch: str | None = None


def restore_windows(
    items: list[Item],
    *,
    restorer: Restorer,
    model_id: str,
    limits: ReadLimits,
    encoding: Encoding,
    place: Place,
    software: str = "unfold",
    clock: Callable[[], float] = perf_counter,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> list[Work]:
    """Restore and store each item, in order; what fails is failed work. Results are tiled TIFFs."""

    note = {"software": software, "model": model_id}

    def step(work: Work) -> Work:
        begin = clock()
        with tempfile.TemporaryDirectory(prefix="unfold-", dir=place.scratch) as folder:
            done = _restore(work, Path(folder), restorer, limits, encoding, place, note)
        outcome = replace(done.outcome, status=DONE, model_id=model_id, seconds_restore=clock() - begin)
        return replace(done, outcome=outcome)

    works = [guarded("restore", step, started(item)) for item in items]
    return [replace(work, outcome=replace(work.outcome, written_at=now())) for work in works]


def _restore(
    work: Work,
    folder: Path,
    restorer: Restorer,
    limits: ReadLimits,
    encoding: Encoding,
    place: Place,
    note: dict[str, str],
) -> Work:
    item = work.item
    kernel = load_kernel(item, limits.kernel)
    with _opened(item, folder, limits) as (facts, source):
        height, width = source.shape[:2]
        _refuse_without_room(folder, scratch_bytes(source, item.scale))
        sigma = _estimated(source) if item.sigma is None else item.sigma
        degradation = Degradation(kernel, item.scale, sigma)
        account = _write(source, degradation, item, restorer, folder / "sr", encoding, note)
    uri = uris.join(place.output, "images", output_key(item, LARGE_ENDING))
    storage.upload(str(folder / "sr"), uri)
    outcome = replace(
        accounted(work.outcome, account, replace(item, sigma=sigma)),
        sr_uri=uri,
        input_etag=facts.etag,
        input_bytes=facts.size,
        output_bytes=(folder / "sr").stat().st_size,
        output_sha256=_sha256(folder / "sr"),
        lr_height=height,
        lr_width=width,
        sr_height=height * item.scale,
        sr_width=width * item.scale,
        mode=source.picture.mode,
        bits=source.picture.bits,
        converted=source.converted,
        sigma=sigma,
    )
    return replace(work, outcome=outcome)


@contextmanager
def _opened(item: Item, folder: Path, limits: ReadLimits) -> Iterator[tuple[storage.ObjectFacts, WindowSource]]:
    """The item's object, fetched to `folder`, and what is known of it. Raises `ItemError`."""
    facts = storage.stat(item.uri)
    _refuse_bytes(item, facts.size or 0, limits.bytes)
    same_object(item, facts.size or 0, facts.etag)
    _refuse_without_room(folder, facts.size or 0)
    storage.download(item.uri, str(folder / "lr"))
    if storage.stat(item.uri).etag != facts.etag:
        raise ItemError("input-changed", f"{item.uri} was replaced while it was fetched")
    with open_windows(folder / "lr", folder, page=item.page, max_pixels=limits.lr_pixels) as source:
        _same_size(item, *source.shape[:2])
        yield facts, source


@dataclass(frozen=True)
class Trial:
    """What the middle of a large image took: `pixels` of LR, and their share of the file and of fetching it.

    bytes_out: of the part as a tiled TIFF. pixel_bytes: of one decoded pixel.
    """

    pixels: int
    bytes_in: float
    bytes_out: int
    seconds: float
    pixel_bytes: int


def tried(
    item: Item,
    *,
    hr_pixels: float,
    restorer: Restorer,
    limits: ReadLimits,
    encoding: Encoding,
    scratch: str | None = None,
    clock: Callable[[], float] = perf_counter,
) -> Trial:
    """Restore the item's middle, some `hr_pixels`, and keep nothing of it. Raises `ItemError`."""
    begin = clock()
    kernel = load_kernel(item, limits.kernel)
    with (
        tempfile.TemporaryDirectory(prefix="unfold-", dir=scratch) as name,
        _opened(item, Path(name), limits) as (facts, whole),
    ):
        part = middle(whole, int(hr_pixels / item.scale**2))
        fetched, pixels = clock(), part.shape[0] * part.shape[1]
        share = pixels / (whole.shape[0] * whole.shape[1])
        sigma = _estimated(whole) if item.sigma is None else item.sigma
        _write(part, Degradation(kernel, item.scale, sigma), item, restorer, Path(name) / "sr", encoding, _NOTE)
        seconds = (fetched - begin) * share + clock() - fetched
        channels = (part.shape[2] if len(part.shape) == 3 else 1) + part.has_alpha
        written = (Path(name) / "sr").stat().st_size
        return Trial(pixels, (facts.size or 0) * share, written, seconds, channels * part.dtype.itemsize)


def _estimated(source: WindowSource) -> float:
    """The noise of the image's middle, where nobody said."""
    tops = [max(0, (n - _SAMPLE) // 2) for n in source.shape[:2]]
    y, x = tops
    middle = source.read(y, min(y + _SAMPLE, source.shape[0]), x, min(x + _SAMPLE, source.shape[1]))
    return estimate_sigma(middle.reshape(*middle.shape[:2], -1))


def _write(
    source: WindowSource,
    degradation: Degradation,
    item: Item,
    restorer: Restorer,
    path: Path,
    encoding: Encoding,
    note: dict[str, str],
) -> "Account":
    """The restored image as a tiled TIFF in the source's own depth, and what the engine tells of it."""
    accounts: list[Account] = []
    height, width = source.shape[0] * item.scale, source.shape[1] * item.scale
    channels = (3 if len(source.shape) == 3 else 1) + source.has_alpha
    with path.open("wb") as file:
        shape = (height, width, channels)
        writer = TiffWriter(file, shape, source.dtype, encoding.options.tiff_compression)
        rows = TiledRows(writer, height, width)
        for y, x, piece in restorer.windows(source, degradation, accounts.append):
            alpha = source.enlarged_alpha(y, x, piece.shape[0], piece.shape[1], item.scale, item.phase)
            planes = [piece.reshape(*piece.shape[:2], -1)] + ([] if alpha is None else [alpha[:, :, None]])
            rows.add(y, x, np.concatenate(planes, axis=2))
        known = _metadata(source, (height, width), item, note if encoding.note else None)
        tags = exif.descriptive_tags(known.exif) if known.exif else {}
        writer.finish(icc=source.icc, xmp=known.xmp, dpi=known.dpi, tags=tags)
    return accounts[0]


def _metadata(source: WindowSource, size: tuple[int, int], item: Item, note: dict[str, str] | None) -> Picture:
    canvas = np.broadcast_to(np.zeros(1, np.uint8), (*size, 1))  # a size without pixels
    picture = replace(source.picture, pixels_hwc=canvas)
    return metadata.enlarged(picture, item.scale, None if note is None else {**note, "scale": str(item.scale)})


def _refuse_bytes(item: Item, size: int, most: int) -> None:
    if size > most:
        raise ItemError("over-limit", f"{item.uri} has {size} bytes; `limits.bytes` allows {most}")


def _same_size(item: Item, height: int, width: int) -> None:
    if None not in (item.height, item.width) and (item.height, item.width) != (height, width):
        planned = f"{item.width}×{item.height}"
        raise ItemError("input-changed", f"{item.uri} is {width}×{height} pixels, the catalog says {planned}")


def _refuse_without_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        where = f"{needed / 1e9:.1f} GB, {folder.parent} has {free / 1e9:.1f} GB free"
        raise ItemError("out-of-scratch", f"this image needs {where}; set `restore.scratch` to a larger disk")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            digest.update(piece)
    return digest.hexdigest()
