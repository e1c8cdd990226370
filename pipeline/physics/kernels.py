"""Blur kernels from a short text, and random ones for training.

The grammar, the same in catalogs, configs and on the command line:

    delta                       no blur
    gaussian(1.6)               isotropic, standard deviation 1.6
    gaussian(2.0, 0.8, 45)      two standard deviations and the angle of the first
    disk(3.5)                   out of focus, radius 3.5
    motion(15, 30)              straight motion: length and angle
    bicubic                     the approximated bicubic kernel of the item's scale

Lengths are HR pixels; angles are degrees, counter-clockwise as displayed. The origin of an n-wide
array is at n//2. Phase: with `corner` the LR pixel is the upper-left pixel of its scale×scale
block, with `center` it is the block's centre. A kernel is always returned for corner decimation,
so for `center` it is sampled at t + (scale-1)/2.

Pure numpy: knows no file and no torch. Kernels in files are `pipeline.data.kernels`' business.
"""

import re

import numpy as np
import numpy.typing as npt

from pipeline.errors import ItemError
from pipeline.records import PHASES, checked_scale, normalized_kernel

Kernel = npt.NDArray[np.float64]

GRAMMAR = "delta, gaussian(sd), gaussian(sd, sd, angle), disk(radius), motion(length, angle), bicubic"

_SPEC = re.compile(r"\s*([a-z]+)\s*(?:\(([^()]*)\))?\s*")
_ARITIES = {"delta": (0,), "gaussian": (1, 3), "disk": (1,), "motion": (2,), "bicubic": (0,)}
_LARGEST_EXTENT = 4096.0  # an HR-pixel length beyond any limit; keeps a typo from taking all memory


def parse_kernel(spec: str, scale: int = 1, phase: str = "corner") -> Kernel:
    """The kernel an analytic specification describes.

    spec: text in the grammar above. scale: integer >= 1. phase: "corner" or "center".
    Returns (n, m) float64, odd sizes, sum 1, for corner decimation by `scale`.
    Raises `ItemError` bad-kernel (naming the grammar) or bad-scale.
    """
    name, numbers = _parse(spec)
    shift = phase_shift(checked_scale(scale), phase)
    if name == "delta":
        return shift_kernel(np.ones((1, 1)), shift)
    if name == "gaussian":
        return _gaussian(numbers[0], numbers[-2] if len(numbers) == 3 else numbers[0], _angle(numbers), shift)
    if name == "disk":
        return _disk(numbers[0], shift)
    if name == "motion":
        return _motion(numbers[0], numbers[1], shift)
    return _bicubic(scale)


def is_analytic(spec: str) -> bool:
    """True where `spec` starts like the grammar's names; anything else is taken for a URI."""
    match = _SPEC.fullmatch(spec)
    return match is not None and match[1] in _ARITIES


def canonical_spec(spec: str) -> str:
    """One spelling for all equal specifications: `" gaussian( 1.60 )"` → `"gaussian(1.6)"`."""
    name, numbers = _parse(spec)
    return f"{name}({','.join(map(_shortest, numbers))})" if numbers else name


def phase_shift(scale: int, phase: str) -> float:
    """How far the sampling point of an LR pixel lies right of and below its block's first pixel."""
    if phase not in PHASES:
        raise ItemError("bad-metadata", f"phase must be one of {', '.join(PHASES)}, not {phase!r}")
    return (scale - 1) / 2 if phase == "center" else 0.0


def shift_kernel(kernel: Kernel, shift: float) -> Kernel:
    """k'(t) = k(t + shift) on both axes by cubic convolution (Keys, a = -1/2), sum kept at 1.

    `shift` is a multiple of 1/2, so the four taps are exact constants. Nothing is cut off.
    """
    k = normalized_kernel(kernel)
    if shift == 0:
        return k
    for axis in (0, 1):
        k = _shift_axis(k, shift, axis)
    return normalized_kernel(k)


def kernel_centroid(kernel: Kernel) -> tuple[float, float]:
    """Centre of mass (y, x) relative to the origin at (n//2, m//2), in HR pixels."""
    y, x = (np.arange(n) - n // 2 for n in kernel.shape)
    return float(kernel.sum(1) @ y), float(kernel.sum(0) @ x)


def random_gaussian_kernel(rng: np.random.Generator, size: int = 25) -> Kernel:
    """Anisotropic Gaussian with standard deviations of 0.5 to 4 pixels, any angle. (size, size)."""
    sd_1, sd_2 = rng.uniform(0.5, 4.0, 2)
    if rng.random() < 0.25:
        sd_2 = sd_1
    return normalized_kernel(_gaussian_at(sd_1, sd_2, rng.uniform(0, 180), *_grid(size // 2, 0.0)))


def random_motion_kernel(rng: np.random.Generator, size: int = 25) -> Kernel:
    """The trace of a shaking hand: a random walk with inertia, centred on its mean. (size, size)."""
    steps, extent = 400, rng.uniform(2.0, 0.45 * size)
    inertia = rng.uniform(0.9, 0.995)
    velocity = np.zeros((steps, 2))
    velocity[0] = rng.normal(size=2)
    for i in range(1, steps):
        velocity[i] = inertia * velocity[i - 1] + np.sqrt(1 - inertia**2) * rng.normal(size=2)
    path = np.cumsum(velocity, axis=0)
    path -= path.mean(axis=0)
    path *= extent / np.abs(path).max()
    path = np.clip(path, -(size // 2) + 1, size // 2 - 1)
    trace = _splat(path[:, 0], path[:, 1], size // 2)
    sd = rng.uniform(0.3, 0.7)
    return normalized_kernel(_convolve_same(trace, _gaussian_at(sd, sd, 0.0, *_grid(2, 0.0))))


def _parse(spec: str) -> tuple[str, list[float]]:
    match = _SPEC.fullmatch(spec)
    if match is None or match[1] not in _ARITIES:
        raise ItemError("bad-kernel", f"kernel {spec!r} is not one of: {GRAMMAR}; or the URI of a file")
    name, inside = match[1], (match[2] or "").strip()
    try:
        numbers = [float(part) for part in inside.split(",")] if inside else []
    except ValueError:
        raise ItemError("bad-kernel", f"kernel {spec!r}: {inside!r} is not a list of numbers") from None
    if len(numbers) not in _ARITIES[name]:
        raise ItemError("bad-kernel", f"kernel {spec!r} has {len(numbers)} numbers; grammar: {GRAMMAR}")
    if not np.isfinite(numbers).all():
        raise ItemError("bad-kernel", f"kernel {spec!r} holds a number that is not finite")
    lengths = numbers[:1] if name == "motion" else numbers[:2]
    if any(not 0 < length <= _LARGEST_EXTENT for length in lengths):
        raise ItemError("bad-kernel", f"kernel {spec!r}: lengths must lie in (0, {_LARGEST_EXTENT:g}]")
    return name, numbers


def _shortest(number: float) -> str:
    """`2` for 2.0, `0` for -0.0, and no digit lost for any other."""
    return repr(number + 0.0).removesuffix(".0")


def _angle(numbers: list[float]) -> float:
    return numbers[2] if len(numbers) == 3 else 0.0


def _grid(radius: int, shift: float) -> tuple[Kernel, Kernel]:
    """y (down) and x (right) of the taps of a (2·radius+1)² array, sampled at t + shift."""
    t = np.arange(-radius, radius + 1, dtype=np.float64) + shift
    return t[:, None], t[None, :]


def _gaussian(sd_1: float, sd_2: float, angle: float, shift: float) -> Kernel:
    radius = int(np.ceil(4 * max(sd_1, sd_2) + shift))
    _refuse_huge(radius)
    values = _gaussian_at(sd_1, sd_2, angle, *_grid(radius, shift))
    if values.sum() == 0:  # narrower than the sampling grid: the limit is a shifted delta
        return shift_kernel(np.ones((1, 1)), shift)
    return normalized_kernel(values)


def _gaussian_at(sd_1: float, sd_2: float, angle: float, y: Kernel, x: Kernel) -> Kernel:
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    along, across = x * cos - y * sin, x * sin + y * cos  # y points down, angles run counter-clockwise
    return np.asarray(np.exp(-0.5 * ((along / sd_1) ** 2 + (across / sd_2) ** 2)))


def _disk(radius: float, shift: float, subpixels: int = 15) -> Kernel:
    """Each tap is the share of its pixel that the disk covers."""
    half = int(np.ceil(radius + 0.5 + shift))
    _refuse_huge(half)
    offsets = (np.arange(subpixels) + 0.5) / subpixels - 0.5
    t = np.arange(-half, half + 1) + shift
    inside = np.zeros((t.size, t.size))
    for dy in offsets:
        for dx in offsets:
            inside += (t[:, None] + dy) ** 2 + (t[None, :] + dx) ** 2 <= radius**2
    return normalized_kernel(inside)


def _motion(length: float, angle: float, shift: float) -> Kernel:
    half = int(np.ceil(length / 2 + 1 + shift))
    _refuse_huge(half)
    along = ((np.arange(n := int(np.ceil(32 * length)) + 1) + 0.5) / n - 0.5) * length
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    return normalized_kernel(_splat(-along * sin - shift, along * cos - shift, half))


def _splat(y: Kernel, x: Kernel, radius: int) -> Kernel:
    """Points spread over their four nearest pixels by bilinear weights."""
    out = np.zeros((2 * radius + 1, 2 * radius + 1))
    y0, x0 = np.floor(y).astype(int), np.floor(x).astype(int)
    fy, fx = y - y0, x - x0
    for dy, wy in ((0, 1 - fy), (1, fy)):
        for dx, wx in ((0, 1 - fx), (1, fx)):
            np.add.at(out, (y0 + dy + radius, x0 + dx + radius), wy * wx)
    return out


def _bicubic(scale: int) -> Kernel:
    """Keys' cubic widened by the scale: what MATLAB's and PIL's antialiased bicubic resize do.

    The half-block shift is part of it, whatever the phase (authors: kernels/kernels_bicubicx234.mat).
    """
    t = (np.arange(-(3 * scale), 3 * scale + 1) + (scale - 1) / 2) / scale
    taps = keys_cubic(t)
    used = np.flatnonzero(np.abs(taps) > 1e-12)
    radius = int(np.abs(used - 3 * scale).max())
    taps = taps[3 * scale - radius : 3 * scale + radius + 1]
    return normalized_kernel(np.outer(taps, taps))


def keys_cubic(t: Kernel, a: float = -0.5) -> Kernel:
    """Keys' cubic convolution kernel (Keys 1981, eq. 15 with a = -1/2)."""
    t = np.abs(t)
    near = (a + 2) * t**3 - (a + 3) * t**2 + 1
    far = a * (t**3 - 5 * t**2 + 8 * t - 4)
    return np.asarray(np.where(t <= 1, near, np.where(t < 2, far, 0.0)))


def _shift_axis(kernel: Kernel, shift: float, axis: int) -> Kernel:
    k = np.moveaxis(kernel, axis, 0)
    n = k.shape[0]
    radius = int(np.ceil(max(n // 2, n - 1 - n // 2) + shift + 2))
    target = np.arange(-radius, radius + 1)[:, None] + shift
    source = np.arange(n)[None, :] - n // 2
    return np.asarray(np.moveaxis(np.tensordot(keys_cubic(target - source), k, axes=1), 0, axis))


def _convolve_same(image: Kernel, kernel: Kernel) -> Kernel:
    radius = kernel.shape[0] // 2
    padded = np.pad(image, radius)
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape)
    return np.asarray(np.einsum("yxij,ij->yx", windows, kernel[::-1, ::-1]))


def _refuse_huge(radius: int) -> None:
    if radius > _LARGEST_EXTENT:
        raise ItemError("bad-kernel", f"the kernel would be {2 * radius + 1} pixels wide")
