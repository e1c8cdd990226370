"""How near an SR image is to its ground truth.

PSNR over all channels, SSIM on luma, as super-resolution papers count them.

Pure numpy: knows no network, no file and no row.
"""

import numpy as np
import numpy.typing as npt

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.uint16] | npt.NDArray[np.floating]

_WINDOW, _WINDOW_SD = 11, 1.5
_K1, _K2 = 0.01, 0.03
_LUMA = np.array([65.481, 128.553, 24.966]) / 255  # BT.601, studio swing: Y = 16 + _LUMA·RGB


def psnr(a: Pixels, b: Pixels, *, border: int = 0, peak: float = 255.0) -> float:
    """Peak signal-to-noise ratio in dB over all pixels and channels.

    a, b: (h, w) or (h, w, c) of one shape, white at `peak`. border: pixels left out on each side.
    Returns inf for equal images, nan where the border leaves nothing. ValueError for unlike shapes.
    """
    a, b = _inner(a, b, border)
    if a.size == 0:
        return float("nan")
    mse = np.mean((a - b) ** 2)
    return float(10 * np.log10(peak**2 / mse)) if mse > 0 else float("inf")


def ssim_y(a: Pixels, b: Pixels, *, border: int = 0, peak: float = 255.0) -> float:
    """Mean structural similarity (Wang et al. 2004) of the luma of two images; 1 for equal ones.

    a, b: (h, w), (h, w, 1) or (h, w, 3) of one shape, white at `peak`. border: pixels left out on
    each side. Only windows wholly inside count. Returns nan where not one 11×11 window fits.
    Raises ValueError for unlike shapes.
    """
    x, y = (luma(image, peak=peak) for image in (a, b))
    x, y = _inner(x, y, border)
    if min(x.shape) < _WINDOW:
        return float("nan")
    c1, c2 = (_K1 * peak) ** 2, (_K2 * peak) ** 2
    mean_x, mean_y = _windowed(x), _windowed(y)
    var_x = _windowed(x * x) - mean_x**2
    var_y = _windowed(y * y) - mean_y**2
    covariance = _windowed(x * y) - mean_x * mean_y
    alike = (2 * mean_x * mean_y + c1) * (2 * covariance + c2)
    return float(np.mean(alike / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))))


def luma(image: Pixels, *, peak: float = 255.0) -> npt.NDArray[np.float64]:
    """Y of BT.601 from (h, w, 3), 16-235 where white is 255; gray images are their own luma.

    Rounded for integer images, as the authors' utilities do. Returns (h, w).
    """
    pixels = np.asarray(image, np.float64)
    if pixels.ndim == 2 or pixels.shape[2] == 1:
        return pixels.reshape(pixels.shape[:2])
    y = pixels @ _LUMA + 16 * peak / 255
    return np.round(y) if np.issubdtype(image.dtype, np.integer) else np.asarray(y)


def _inner(a: Pixels, b: Pixels, border: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    if a.shape != b.shape:
        raise ValueError(f"cannot compare images of the shapes {a.shape} and {b.shape}")
    h, w = a.shape[:2]
    inner = (slice(border, max(h - border, border)), slice(border, max(w - border, border)))
    return np.asarray(a[inner], np.float64), np.asarray(b[inner], np.float64)


def _windowed(image: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Gaussian-weighted mean of every window inside `image`: (h, w) → (h - 10, w - 10)."""
    t = np.arange(_WINDOW) - _WINDOW // 2
    taps = np.exp(-0.5 * (t / _WINDOW_SD) ** 2)
    for _ in range(2):  # rows, then (transposed) columns
        inside = image.shape[0] - _WINDOW + 1
        image = sum(tap * image[i : i + inside] for i, tap in enumerate(taps / taps.sum())).T
    return image
