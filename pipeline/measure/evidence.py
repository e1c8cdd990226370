"""Which kernel and sigma explain an LR image: their evidence, without ground truth or network.

The raw consistency cannot choose a kernel: a narrow one explains any image. The evidence asks how
probable the image itself is under a setting, with the sharp image integrated out. Photographs have
power spectra near a power law, so with y = (x ⊗ k)↓s + n

    P(f) = fold( c |K(f)|² / |f|^(2β) ) + σ² + 1/12           expected power of y
    L    = -mean over f of  log P(f) + |Y(f)|² / P(f)          Whittle's log-likelihood

    K  OTF of k   Y  spectrum of y   c, β  the photograph's own, fitted   1/12  rounding to grey levels

A kernel too narrow, or a sigma too low, leaves power it calls too improbable (the second term); one
too wide, or a sigma too high, expects power that is not there (the first term: Occam's factor).
MacKay 1992 has the argument, Whittle 1953 the likelihood. Colours are rotated to luma and two
differences, which photographs leave nearly uncorrelated, and each gets its own c and β.

Pure numpy: knows no network, no file and no row.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline.physics.degradation import wrapped_psf

Array = npt.NDArray[np.float64]

LARGEST_SIDE = 256  # LR pixels that are looked at: more tell no more, and cost scale² as much

_SLOPES = (1.0, 1.2, 1.4, 1.6)  # β; photographs lie near 1, and those with much sky or blur higher
_ROUNDING = 1 / 12  # variance of rounding to whole grey levels
_SLOWEST = 2  # cycles per image that are left out: trends and the window, not the kernel
_LOG_AMPLITUDES = np.linspace(-12.0, 12.0, 25)
_SCORING_STEPS = 12
_LUMA_AND_DIFFERENCES = np.array([[1, 1, 1], [1, 0, -1], [1, -2, 1]]) / np.sqrt([[3], [2], [6]])


@dataclass(frozen=True)
class Periodogram:
    """What of an image its evidence needs. power: (channels, n) at the frequencies `used` (h, w)."""

    power: Array
    used: npt.NDArray[np.bool_]


def periodogram(lr: npt.NDArray[np.integer] | npt.NDArray[np.floating]) -> Periodogram:
    """|Y|² of the middle of an LR image: (h, w), (h, w, 1) or (h, w, 3), white at 255.

    Raises ValueError for an image below 8 pixels: it holds no frequencies to judge by.
    """
    y = _rotated(_middle(np.asarray(lr, np.float64).reshape(*lr.shape[:2], -1)))
    h, w = y.shape[1:]
    if min(h, w) < 8:
        raise ValueError(f"an image of {w}×{h} pixels is too small to judge kernels by")
    window = np.outer(_hann(h), _hann(w))
    y = (y - y.mean(axis=(1, 2), keepdims=True)) * window
    fy, fx = np.fft.fftfreq(h, 1 / h), np.fft.fftfreq(w, 1 / w)  # cycles per image
    used = (np.abs(fy)[:, None] > _SLOWEST) | (np.abs(fx)[None, :] > _SLOWEST)
    used[h // 2 + 1 :] = False  # the other half mirrors this one
    power = np.abs(np.fft.fft2(y)) ** 2 / (window**2).sum()
    return Periodogram(power[:, used], used)


def log_evidence(seen: Periodogram, kernel: Array, scale: int, sigmas_255: Sequence[float]) -> list[float]:
    """L of one kernel with each sigma, in nats per sample; higher is better, differences count.

    kernel: (kh, kw), sum 1, for corner decimation. sigmas_255: grey levels of 0-255. A difference
    of d makes an image of n samples exp(n·d) times as probable.
    """
    shapes = [_expected_shape(seen.used, kernel, scale, slope) for slope in _SLOPES]
    noises = [sigma**2 + _ROUNDING for sigma in sigmas_255]
    return [float(np.mean([max(_fit(p, t, noise) for t in shapes) for p in seen.power])) for noise in noises]


def _expected_shape(used: npt.NDArray[np.bool_], kernel: Array, scale: int, slope: float) -> Array:
    """fold(|K|² / |f|^(2β)) at the used frequencies, up to the amplitude c."""
    h, w = used.shape
    transfer = np.abs(np.fft.fft2(wrapped_psf(kernel, (h * scale, w * scale)))) ** 2
    f2 = np.fft.fftfreq(h * scale)[:, None] ** 2 + np.fft.fftfreq(w * scale)[None, :] ** 2
    f2[0, 0] = np.inf
    folded = (transfer * f2**-slope).reshape(scale, h, scale, w).sum(axis=(0, 2))
    return np.asarray(folded[used])


def _fit(power: Array, shape: Array, noise: float) -> float:
    """max over c of L: a coarse scan of log c on some frequencies, then Fisher scoring on all."""
    some = slice(None, None, 7)
    scan = np.exp(_LOG_AMPLITUDES)[:, None] * shape[some] + noise
    log_c = float(_LOG_AMPLITUDES[np.argmin((np.log(scan) + power[some] / scan).mean(axis=1))])
    for _ in range(_SCORING_STEPS):
        expected = np.exp(log_c) * shape + noise
        share = 1 - noise / expected
        gradient = np.mean(share * (1 - power / expected))
        log_c -= float(np.clip(gradient / max(np.mean(share**2), 1e-9), -1, 1))
    expected = np.exp(log_c) * shape + noise
    return -float(np.mean(np.log(expected) + power / expected))


def _middle(image: Array) -> Array:
    h, w = image.shape[:2]
    top, left = max(0, (h - LARGEST_SIDE) // 2), max(0, (w - LARGEST_SIDE) // 2)
    return image[top : top + LARGEST_SIDE, left : left + LARGEST_SIDE]


def _rotated(image: Array) -> Array:
    """(h, w, c) → (c, h, w); a rotation, so white noise stays white with the same sigma."""
    channels = image.transpose(2, 0, 1)
    return np.tensordot(_LUMA_AND_DIFFERENCES, channels, axes=1) if len(channels) == 3 else channels


def _hann(n: int) -> Array:
    return np.asarray(np.hanning(n + 2)[1:-1])
