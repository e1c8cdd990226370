"""Between images as users have them and tensors as the network has them."""

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from pipeline.errors import ItemError

Image = npt.NDArray[np.uint8] | npt.NDArray[np.uint16]


def check(shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Raises `ItemError` for anything but a (h, w, 3) or (h, w) image of uint8 or uint16."""
    if dtype not in (np.uint8, np.uint16) or len(shape) not in (2, 3) or shape[2:] not in ((), (3,)):
        raise ItemError(
            "unsupported-mode", f"an image must be (h, w, 3) or (h, w) uint8 or uint16, not {shape} {dtype}"
        )
    if 0 in shape:
        raise ItemError("corrupt-image", f"the image has no pixels: {shape}")


def unit_range(image: Image, device: torch.device) -> Tensor:
    """(h, w[, 3]) integers → (3, h, w) float32 in [0, 1] on the device; gray becomes three equal channels."""
    peak = float(np.iinfo(image.dtype).max)
    samples = torch.from_numpy(np.require(image, requirements=("C", "W")))  # decoders hand out read-only views
    if device.type == "cuda":
        samples = samples.pin_memory().to(device, non_blocking=True)
    unit = samples.float() / peak
    return unit.permute(2, 0, 1) if image.ndim == 3 else unit.expand(3, -1, -1)


def quantized(sr: Tensor, dtype: np.dtype[Any], gray: bool) -> Image:
    """(3, H, W) float → (H, W[, 3]) integers; a gray picture is the channels' mean. Rounded on the device."""
    picture = sr.mean(dim=0) if gray else sr.permute(1, 2, 0)
    levels = picture.clamp(0, 1).mul(float(np.iinfo(dtype).max)).round()
    if dtype == np.uint8:
        levels = levels.to(torch.uint8)
    image: Image = levels.contiguous().cpu().numpy().astype(dtype, copy=False)
    return image


class Canvas:
    """Where the windows of an image, or of a strip of it, add up: (3, height, width) float32 in main memory."""

    def __init__(self, height: int, width: int) -> None:
        self.pixels = torch.zeros(3, height, width)

    def add(self, sr: Tensor, y: int, x: int, weight: Tensor) -> None:
        """sr: (3, rows, columns), its upper left at (y, x); weight: (rows, columns)."""
        weighted = sr * weight.to(sr.device)
        self.pixels[:, y : y + sr.shape[1], x : x + sr.shape[2]] += weighted.cpu()

    def take_rows(self, count: int) -> Tensor:
        """The first `count` rows, finished; the others move up, and nothing lies below them."""
        finished = self.pixels[:, :count].clone()
        rest = self.pixels.shape[1] - count
        self.pixels[:, :rest] = self.pixels[:, count:].clone()
        self.pixels[:, rest:] = 0
        return finished
