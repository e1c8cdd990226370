"""Borders of real images: our periodic extension against none, a mirrored margin, and Liu and Jia's.

The truth is known: pictures are blurred with what lies around them in the photograph, not wrapped.
Liu and Jia (Reducing boundary artifacts in image deconvolution, ICIP 2008) fill the margin with the
surface that has no curvature between the image's opposite edges; written here from the paper.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import skimage
import torch
from PIL import Image
from scipy import ndimage
from scipy.fft import dstn, idstn
from torch import Tensor

from pipeline.model.checkpoint import load_usrnet
from pipeline.model.layout import lay_out
from pipeline.model.usrnet import USRNet
from pipeline.physics.boundary import extend_periodic
from pipeline.records import Degradation

Plane = npt.NDArray[np.float64]

AROUND = 40  # HR pixels of the photograph around the picture, which only the blur sees
SIDE = 168
PHOTOGRAPHS = ("astronaut.png", "chelsea.png", "coffee.png", "motorcycle_left.png", "ihc.png")
KERNELS = (0, 5, 8)


def liu_jia(lr: Tensor, height: int, width: int) -> Tensor:
    """(3, h, w) → (3, height, width): edges joined by surfaces of zero Laplacian."""
    return torch.from_numpy(np.stack([_joined(plane, height, width) for plane in lr.double().numpy()])).float()


def _joined(image: Plane, height: int, width: int) -> Plane:
    h, w = image.shape
    below, beside = height - h, width - w
    down, right = ((np.arange(1, n + 1) / (n + 1)) for n in (below, beside))
    left_side = image[-1, 0] * (1 - down) + image[0, 0] * down
    right_side = image[-1, -1] * (1 - down) + image[0, -1] * down
    bottom = np.empty((below, w))
    bottom[:, 0], bottom[:, -1] = left_side, right_side
    bottom[:, 1:-1] = _flat(image[-1], image[0], left_side, right_side)
    top_side = image[0, -1] * (1 - right) + image[0, 0] * right
    low_side = image[-1, -1] * (1 - right) + image[-1, 0] * right
    side = np.empty((h, beside))
    side[0], side[-1] = top_side, low_side
    side[1:-1] = _flat(
        np.r_[image[0, -1], top_side, image[0, 0]],
        np.r_[image[-1, -1], low_side, image[-1, 0]],
        image[1:-1, -1],
        image[1:-1, 0],
    )
    corner = _flat(
        np.r_[image[-1, -1], side[-1], image[-1, 0]],
        np.r_[image[0, -1], side[0], image[0, 0]],
        bottom[:, -1],
        bottom[:, 0],
    )
    return np.block([[image, side], [bottom, corner]])


def _flat(above: Plane, below: Plane, left: Plane, right: Plane) -> Plane:
    """The inside of a rectangle with zero Laplacian and these sides; above and below hold the corners too."""
    rows, columns = len(left), len(above) - 2
    sides = np.zeros((rows, columns))
    sides[0] -= above[1:-1]
    sides[-1] -= below[1:-1]
    sides[:, 0] -= left
    sides[:, -1] -= right
    frequencies = [2 * np.cos(np.pi * np.arange(1, n + 1) / (n + 1)) - 2 for n in (rows, columns)]
    flat: Plane = idstn(dstn(sides, type=1) / (frequencies[0][:, None] + frequencies[1]), type=1)
    return flat


def mirrored(lr: Tensor, height: int, width: int) -> Tensor:
    """Half of the margin mirrored on each side; where the halves meet there is a step."""

    def index(n: int, whole: int) -> Tensor:
        i = torch.arange(whole)
        i = torch.where(i < n + (whole - n) // 2, i, i - whole) % (2 * n)
        return torch.where(i < n, i, 2 * n - 1 - i)

    return lr[:, index(lr.shape[1], height)][:, :, index(lr.shape[2], width)]


def not_at_all(lr: Tensor, height: int, width: int) -> Tensor:
    return lr


def test_liu_and_jias_margin_is_smooth_and_periodic() -> None:
    y, x = np.mgrid[:24, :30] / 20
    image = torch.from_numpy(np.stack([y + x, y * x, np.sin(x)])).float()
    joined = liu_jia(image, 40, 50)
    assert torch.equal(joined[:, :24, :30], image)
    wrapped = torch.cat((joined, joined[:, :1]), dim=1)
    assert wrapped.diff(dim=1).abs().max() < 0.25, "no step anywhere, around the torus"


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1, 2, 3, 4])
@pytest.mark.parametrize("sigma", [0.0, 2.55])
def test_the_outer_pixels_are_as_good_as_with_liu_and_jias_margin(reference: Path, scale: int, sigma: float) -> None:
    net = load_usrnet(reference / "usrnet_tiny.pth")
    net.p.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    kernels = np.load(reference / "paper_kernels.npz")["table1"]
    ways: dict[str, Callable[[Tensor, int, int], Tensor]] = {
        "ours": extend_periodic, "liu-jia": liu_jia, "mirrored": mirrored, "none": not_at_all,
    }  # fmt: skip
    found: dict[str, list[float]] = {name: [] for name in ways}
    rng = np.random.default_rng(0)
    for name in PHOTOGRAPHS:
        for k in KERNELS:
            degradation = Degradation(np.asarray(kernels[k], np.float64), scale, sigma)
            lr, hr = seen(name, degradation, rng)
            shape = lay_out((lr.shape[1], lr.shape[2]), degradation, "smooth", 2**30).shape
            for way, extend in ways.items():
                found[way].append(outer_psnr(restored(net, extend(lr, *shape), degradation), hr, scale))
    mean = {way: round(float(np.mean(values)), 2) for way, values in found.items()}
    print(f"x{scale} sigma {sigma}: {mean}")
    assert mean["ours"] > mean["none"] + 2.5
    assert mean["ours"] > mean["mirrored"]
    assert mean["ours"] > mean["liu-jia"] - 0.15, mean


def seen(name: str, degradation: Degradation, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """LR (3, h, w) as a camera sees it, 8 bits, and the HR truth (3, SIDE, SIDE)."""
    around = SIDE + 2 * AROUND
    photograph = np.asarray(Image.open(Path(skimage.__file__).parent / "data" / name).convert("RGB"))
    hr = photograph[30 : 30 + around, 30 : 30 + around] / 255
    blurred = np.stack([ndimage.convolve(hr[:, :, c], degradation.kernel, mode="wrap") for c in range(3)])
    inside = (slice(None), slice(AROUND, -AROUND), slice(AROUND, -AROUND))
    lr = blurred[inside][:, :: degradation.scale, :: degradation.scale]
    lr = np.rint((lr + rng.normal(0, degradation.sigma / 255, lr.shape)).clip(0, 1) * 255) / 255
    return torch.from_numpy(lr).float(), torch.from_numpy(hr.transpose(2, 0, 1)[inside].copy()).float()


@torch.inference_mode()
def restored(net: USRNet, lr: Tensor, degradation: Degradation) -> Tensor:
    kernel = torch.from_numpy(degradation.kernel).float()[None, None]
    sigma = torch.full((1, 1, 1, 1), degradation.sigma / 255)
    return net(lr[None], kernel, degradation.scale, sigma)[0, :, :SIDE, :SIDE].clamp(0, 1)  # type: ignore[no-any-return]


def outer_psnr(sr: Tensor, hr: Tensor, scale: int) -> float:
    """PSNR in dB of the outer 16·s pixels."""
    outer = torch.ones(SIDE, SIDE, dtype=torch.bool)
    outer[16 * scale : -16 * scale, 16 * scale : -16 * scale] = False
    return float(-10 * torch.log10(((sr - hr) ** 2)[:, outer].mean()))
