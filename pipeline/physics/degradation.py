"""The classical degradation y = (x ⊗ k)↓s + n, in numpy: what USRNet inverts.

    x  HR image      k  kernel (PSF)      s  scale      n  white Gaussian noise

Knows no network and no file. The torch counterpart, in batches and with gradients, is
`pipeline.physics.fourier`.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt

from pipeline.records import checked_scale, checked_sigma, normalized_kernel

Boundary = Literal["circular", "reflect"]


def degrade(
    hr: npt.NDArray[np.floating],
    kernel: npt.ArrayLike,
    scale: int,
    sigma_255: float,
    *,
    boundary: Boundary = "circular",
    rng: np.random.Generator | None = None,
) -> npt.NDArray[np.float64]:
    """Blur, decimate, add noise (USRNet, eq. 1).

    hr: (h, w, c) or (h, w) float in [0, 1]. kernel: (kh, kw), origin at (kh//2, kw//2).
    scale: integer >= 1; the upper-left pixel of each block is kept. sigma_255: noise standard
    deviation in grey levels of 0-255. boundary: `circular` wraps around (the authors' synthetic
    protocol), `reflect` mirrors with the edge repeated (what a camera sees is alike).
    rng: source of the noise; required when sigma_255 > 0.

    Returns (ceil(h/scale), ceil(w/scale)[, c]) float64, not clipped.
    Raises ValueError for a missing rng, `ItemError` for an impossible kernel, scale or sigma.
    """
    scale, sigma_255 = checked_scale(scale), checked_sigma(sigma_255)
    if sigma_255 > 0 and rng is None:
        raise ValueError("degrade needs rng, a numpy Generator, when sigma_255 > 0")
    lr = blur(hr, kernel, boundary=boundary)[::scale, ::scale]
    if sigma_255 > 0 and rng is not None:
        lr = lr + rng.normal(0.0, sigma_255 / 255.0, lr.shape)
    return lr


def blur(
    image: npt.NDArray[np.floating], kernel: npt.ArrayLike, *, boundary: Boundary = "circular"
) -> npt.NDArray[np.float64]:
    """x ⊗ k: true convolution (the kernel is flipped), same size as `image` (h, w[, c])."""
    k = normalized_kernel(kernel)
    if boundary == "circular":
        return _circular_blur(np.asarray(image, np.float64), k)
    if boundary != "reflect":
        raise ValueError(f"boundary must be 'circular' or 'reflect', not {boundary!r}")
    (top, left), (h, w) = (n // 2 + 1 for n in k.shape), image.shape[:2]
    margins = [(top, top), (left, left)] + [(0, 0)] * (image.ndim - 2)
    extended = np.pad(np.asarray(image, np.float64), margins, mode="symmetric")
    return _circular_blur(extended, k)[top : top + h, left : left + w]


def _circular_blur(image: npt.NDArray[np.float64], k: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    h, w = image.shape[:2]
    spectrum = np.fft.rfft2(image, axes=(0, 1))
    transfer = np.fft.rfft2(wrapped_psf(k, (h, w)))
    transfer = transfer.reshape(transfer.shape + (1,) * (image.ndim - 2))
    return np.asarray(np.fft.irfft2(spectrum * transfer, s=(h, w), axes=(0, 1)))


def wrapped_psf(k: npt.NDArray[np.float64], shape: tuple[int, int]) -> npt.NDArray[np.float64]:
    """The kernel on a (h, w) torus with its origin at (0, 0); larger kernels wrap around and add up."""
    rows = (np.arange(k.shape[0]) - k.shape[0] // 2) % shape[0]
    columns = (np.arange(k.shape[1]) - k.shape[1] // 2) % shape[1]
    psf = np.zeros(shape)
    np.add.at(psf, (rows[:, None], columns[None, :]), k)
    return psf
