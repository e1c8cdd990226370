"""The nouns of Unfold: what is to be done, with which degradation, and what became of it.

Plain dataclasses on numpy. Knows no file, no table format, no network, no Ray.
"""

import math
from dataclasses import dataclass, replace
from datetime import datetime
from typing import TypeGuard

import numpy as np
import numpy.typing as npt

from pipeline.errors import ERROR_CODES, ItemError

DONE = "done"
FAILED = "failed"
DEFERRED = "deferred"  # too large for this path: no row of the manifest, but work for the windows path
STOPPED = "stopped"  # the run ended before the item's turn; never in the manifest

KERNEL_VALUES = "values"  # the name of a kernel that is given by its numbers
PHASES = ("center", "corner")
SIGMA_AUTO = "auto"  # where a sigma may stand: estimate it from the image
SIGMA_ESTIMATOR = "auto-1"  # changes with the estimates, and so what was restored by them is redone
SOURCES = ("catalog", "sidecar", "default", "estimated")  # where an item's value came from

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | npt.NDArray[np.float32]


def white(dtype: npt.DTypeLike) -> float:
    """The value of white in images of this type: 255, 65535, or 1.0 for floats."""
    return float(np.iinfo(dtype).max) if np.issubdtype(dtype, np.integer) else 1.0


@dataclass(frozen=True)
class Degradation:
    """The camera: `lr = (hr ⊗ kernel)↓scale + noise` (USRNet, eq. 1).

    kernel: (kh, kw) float64, sums to 1, origin at (kh//2, kw//2), corner phase: decimation keeps
        the upper-left pixel of each scale×scale block. In HR pixels.
    scale: integer >= 1.
    sigma: noise standard deviation in grey levels of 0-255 (2.55 is 1% of white).

    Raises `ItemError` (bad-kernel, bad-scale, bad-sigma) when a value is impossible.
    """

    kernel: npt.NDArray[np.float64]
    scale: int
    sigma: float

    def __post_init__(self) -> None:
        object.__setattr__(self, "kernel", normalized_kernel(self.kernel))
        object.__setattr__(self, "scale", checked_scale(self.scale))
        object.__setattr__(self, "sigma", checked_sigma(self.sigma))


def normalized_kernel(kernel: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """A (kh, kw) float64 copy that sums to 1, or `ItemError` bad-kernel. Negative taps are legal."""
    try:
        k = np.asarray(kernel).astype(np.float64, casting="same_kind")
    except (TypeError, ValueError, OverflowError) as error:
        raise ItemError("bad-kernel", f"the kernel is not a table of real numbers: {error}") from None
    if k.ndim != 2 or k.size == 0:
        raise ItemError("bad-kernel", f"the kernel must be a non-empty 2-D array, not of shape {k.shape}")
    with np.errstate(over="ignore", invalid="ignore"):
        total, size = k.sum(), np.abs(k).sum()
    if not np.isfinite(size):
        raise ItemError("bad-kernel", "the kernel holds NaN, infinite or enormous values")
    if abs(total) <= 1e-12 * size:
        raise ItemError("bad-kernel", "the kernel sums to zero, so it cannot be normalised to 1")
    return np.asarray(k / total)


def checked_scale(scale: object) -> int:
    """`scale` as int, or `ItemError` bad-scale. 2.0 is accepted, 1.5, "two" and True are not."""
    if _is_number(scale) and 1 <= scale < math.inf and scale == int(scale):
        return int(scale)
    raise ItemError("bad-scale", f"scale must be a whole number >= 1, not {scale!r}")


def checked_sigma(sigma: object) -> float:
    """`sigma` as float, or `ItemError` bad-sigma."""
    if _is_number(sigma) and 0 <= sigma <= 255:
        return float(sigma)
    raise ItemError("bad-sigma", f"sigma must be a number from 0 to 255 (grey levels), not {sigma!r}")


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


@dataclass(frozen=True, slots=True)  # slots: a plan holds millions
class Item:
    """One LR image to restore, every setting resolved: what the plan hands to the stages.

    uri: absolute. key: output key below `<output>/images/`, without the format's ending decided
    later. kernel: canonical specification, a URI, or "values" when `kernel_values` holds it.
    sigma: grey levels of 0-255; None until the read stage has estimated it. width, height: LR
    pixels after EXIF orientation; etag, size: the content's identity; None where the catalog does
    not say. *_source: one of `SOURCES`.
    """

    item_id: str
    uri: str
    key: str
    scale: int
    sigma: float | None
    kernel: str
    phase: str
    page: int = 0
    kernel_values: list[list[float]] | None = None
    kernel_digest: str = ""
    width: int | None = None
    height: int | None = None
    etag: str | None = None
    size: int | None = None
    hr_uri: str | None = None
    scale_source: str = "catalog"
    sigma_source: str = "catalog"
    kernel_source: str = "catalog"
    phase_source: str = "default"
    work_id: str = ""


@dataclass(frozen=True)
class Picture:
    """A decoded image as it travels: what the network sees, and what must not get lost.

    pixels_hwc: (h, w, 1) or (h, w, 3), uint8, uint16 or float32 in [0, 1], orientation applied.
    alpha_hw: (h, w) of the same dtype, not multiplied into the colours, or None. mode: of the file,
    as Pillow names it (L, RGB, CMYK, ...). format: of the file (png, jpeg, ...). bits: per sample
    in the file. icc, exif, xmp: carried over; dpi: (x, y) of this image. converted: what was done
    to the colours at decoding where the samples could not stay as they were stored.
    """

    pixels_hwc: Pixels
    mode: str
    format: str
    bits: int = 8
    alpha_hw: Pixels | None = None
    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    converted: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of one item in one run: one row of the manifest, in the manifest's order.

    It grows from stage to stage; `status` is set last. Times are seconds of this item's share.
    """

    item_id: str
    work_id: str = ""
    run_id: str = ""
    status: str = ""
    error_code: str | None = None
    error: str | None = None
    error_class: str | None = None
    stage: str | None = None
    attempts: int = 1
    uri: str = ""
    sr_uri: str | None = None
    page: int = 0
    input_etag: str | None = None
    input_bytes: int | None = None
    output_bytes: int | None = None
    output_sha256: str | None = None
    lr_width: int | None = None
    lr_height: int | None = None
    sr_width: int | None = None
    sr_height: int | None = None
    mode: str | None = None
    bits: int | None = None
    converted: str | None = None
    scale: int | None = None
    sigma: float | None = None
    kernel: str | None = None
    kernel_digest: str | None = None
    phase: str | None = None
    scale_source: str | None = None
    sigma_source: str | None = None
    kernel_source: str | None = None
    phase_source: str | None = None
    model_id: str | None = None
    precision: str | None = None
    backend: str | None = None
    tiles: int | None = None
    seconds_read: float | None = None
    seconds_restore: float | None = None
    seconds_write: float | None = None
    consistency_rms_255: float | None = None
    consistency_flagged: bool | None = None
    psnr_db: float | None = None
    ssim: float | None = None
    software: str | None = None
    written_at: datetime | None = None


def failed(outcome: Outcome, error: ItemError, stage: str) -> Outcome:
    """`outcome` as failed by `error` in `stage`."""
    row = ERROR_CODES[error.code]
    return replace(
        outcome,
        status=FAILED,
        error_code=row.code,
        error=str(error),
        error_class=row.error_class,
        stage=stage,
    )


@dataclass(frozen=True, slots=True)
class Known:
    """What the manifest says is current for one item."""

    work_id: str
    status: str
    error_code: str | None
    attempts: int


@dataclass(frozen=True)
class Work:
    """One item on its way through the stages.

    picture: the LR image after read, the SR image after restore, None after write or failure.
    degradation: set by read. Work that has failed, or was stopped, passes later stages untouched.
    """

    item: Item
    outcome: Outcome
    picture: Picture | None = None
    degradation: Degradation | None = None

    @property
    def failed(self) -> bool:
        return self.outcome.status in (FAILED, DEFERRED, STOPPED)
